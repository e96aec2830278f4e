//! tmp
pub struct Client;
pub fn parse(_p: &str) -> Client { Client }
impl Client { pub fn json(&self) -> String { "{}".into() } }
