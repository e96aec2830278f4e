//! tmp
use crate::config::{Addresses, Secret};
use std::net::IpAddr;
#[derive(Debug, Clone)]
pub struct UserHash;
impl UserHash { pub fn new(_k: &Secret) -> Self { Self } pub fn hash(&self, u: &str) -> String { u.into() } }
pub fn address(a: IpAddr, _k: Addresses) -> Option<IpAddr> { Some(a) }
pub fn redact_uri(u: &str) -> String { u.into() }
