//! When a container counts as healthy.

use std::time::Duration;

use clap::Args;
use skep_model::{ContainerSpec, HealthCheck, HealthTest};

use crate::cli::Result;
use crate::cli::output::time;

#[derive(Debug, Clone, Default, PartialEq, Args)]
pub struct Health {
    /// Command that tells whether the container is healthy; the container's shell runs it
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// Time between two checks
    #[arg(long, value_name = "DURATION", value_parser = time::parse_duration)]
    health_interval: Option<Duration>,
    /// Failures in a row that make it unhealthy
    #[arg(long, value_name = "NUMBER")]
    health_retries: Option<u32>,
    /// Time between two checks until the first success
    #[arg(long, value_name = "DURATION", value_parser = time::parse_duration)]
    health_start_interval: Option<Duration>,
    /// How long failures do not count after the start
    #[arg(long, value_name = "DURATION", value_parser = time::parse_duration)]
    health_start_period: Option<Duration>,
    /// How long one check may take
    #[arg(long, value_name = "DURATION", value_parser = time::parse_duration)]
    health_timeout: Option<Duration>,
    /// No health check, the image's included
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    no_healthcheck: Option<bool>,
}

impl Health {
    /// A check that was switched off and gets a setting is on again, as in Docker.
    pub fn apply(&self, container: &mut ContainerSpec) -> Result {
        let Self {
            health_cmd,
            health_interval,
            health_retries,
            health_start_interval,
            health_start_period,
            health_timeout,
            no_healthcheck,
        } = self;
        let durations = [health_interval, health_start_interval, health_start_period, health_timeout];
        let settings = health_cmd.is_some() || health_retries.is_some() || durations.iter().any(|it| it.is_some());
        if no_healthcheck == &Some(true) {
            if settings {
                anyhow::bail!("--no-healthcheck conflicts with --health-* options");
            }
            let test = Some(HealthTest::Disabled);
            container.health_check = Some(HealthCheck { test, ..HealthCheck::default() });
            return Ok(());
        }
        if !settings {
            return Ok(());
        }
        let check = container.health_check.get_or_insert_default();
        if check.test == Some(HealthTest::Disabled) {
            check.test = None;
        }
        if let Some(command) = health_cmd {
            check.test = match command.as_str() {
                "" => None,
                "none" => Some(HealthTest::Disabled),
                command => Some(HealthTest::Shell(command.to_owned())),
            };
        }
        check.interval = health_interval.or(check.interval);
        check.timeout = health_timeout.or(check.timeout);
        check.retries = health_retries.or(check.retries);
        check.start_period = health_start_period.or(check.start_period);
        check.start_interval = health_start_interval.or(check.start_interval);
        Ok(())
    }
}
