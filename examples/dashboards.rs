//! Writes `kibana/` anew from the panels in `src/panels`: `make dashboards`.

use std::path::Path;

use anyhow::Context;
use callscope::panels::{all, hosts, kibana};

fn main() -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kibana");
    std::fs::create_dir_all(&folder).context("cannot make kibana/")?;
    for (name, text) in kibana::files(all(), hosts()) {
        std::fs::write(folder.join(name), text)
            .with_context(|| format!("cannot write kibana/{name}"))?;
    }
    Ok(())
}
