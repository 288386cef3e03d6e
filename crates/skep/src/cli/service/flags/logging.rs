//! Where a task's output is kept: on its node, in files of this size and number.

use clap::Args;
use skep_model::{Labels, LogDriver};

use super::pairs;
use crate::cli::Result;
use crate::cli::service::syntax::KeyValue;

#[derive(Debug, Clone, Default, PartialEq, Args)]
pub struct Logging {
    /// json-file; the others of Docker's are not supported
    #[arg(long, value_name = "DRIVER")]
    log_driver: Option<String>,
    /// max-size=10m or max-file=3; may be given several times
    #[arg(long = "log-opt", value_name = "OPTION")]
    log_opts: Vec<KeyValue>,
}

const OPTIONS: [&str; 2] = ["max-size", "max-file"];

impl Logging {
    /// A driver begins with the options that stand beside it; options alone are added to those that are there.
    pub fn apply(&self, place: &mut Option<LogDriver>) -> Result {
        if let Some(driver) = self.log_driver.as_deref().filter(|driver| !matches!(*driver, "" | "json-file" | "local"))
        {
            anyhow::bail!(
                "log driver `{driver}` is not supported by this version of skep; json-file keeps logs on the node, and `skep service logs` shows them"
            );
        }
        if let Some(KeyValue(unknown, _)) =
            self.log_opts.iter().find(|KeyValue(name, _)| !OPTIONS.contains(&name.as_str()))
        {
            anyhow::bail!("log option `{unknown}` is not known; use {}", OPTIONS.join(" or "));
        }
        if self.log_driver.is_none() && self.log_opts.is_empty() {
            return Ok(());
        }
        let kept = place.take().filter(|_| self.log_driver.is_none());
        let mut options: Labels = kept.map(|driver| driver.options).unwrap_or_default();
        options.extend(pairs(&self.log_opts));
        *place = Some(LogDriver { name: "json-file".to_owned(), options });
        Ok(())
    }
}
