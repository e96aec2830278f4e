//! tmp
#[derive(Debug, Clone)]
pub struct Path;
impl Path { pub fn new(_t: &str) -> Option<Self> { None } pub fn pick(&self, _s: Option<&str>, _c: Option<&str>) -> Option<String> { None } }
pub fn video_size(_t: &str) -> Option<(i64, i64)> { None }
pub fn candidate_json(_j: &str) -> Option<String> { None }
pub fn net_total_json(_j: &str) -> Option<String> { None }
