//! When tasks are started again, and how they are replaced.

use std::time::Duration;

use clap::Args;
use skep_model::{Condition, FailureAction, RestartPolicy, UpdateConfig, UpdateOrder};

use super::set;
use crate::cli::output::time;

#[derive(Debug, Clone, Default, PartialEq, Args)]
pub struct Restart {
    /// Which ended tasks are replaced (default any)
    #[arg(long, value_name = "CONDITION", value_parser = ["none", "on-failure", "any"])]
    restart_condition: Option<String>,
    /// The first pause before a replacement; it doubles with each failure in a row (default 5s)
    #[arg(long, value_name = "DURATION", value_parser = time::parse_duration)]
    restart_delay: Option<Duration>,
    /// Most replacements; 0 is no limit
    #[arg(long, value_name = "NUMBER")]
    restart_max_attempts: Option<u64>,
    /// Replacements older than this do not count
    #[arg(long, value_name = "DURATION", value_parser = time::parse_duration)]
    restart_window: Option<Duration>,
}

impl Restart {
    pub fn apply(&self, policy: &mut RestartPolicy) {
        match self.restart_condition.as_deref() {
            None => {}
            Some("none") => policy.condition = Condition::None,
            Some("on-failure") => policy.condition = Condition::OnFailure,
            Some(_) => policy.condition = Condition::Any,
        }
        set(&mut policy.delay, &self.restart_delay);
        set(&mut policy.max_attempts, &self.restart_max_attempts);
        set(&mut policy.window, &self.restart_window);
    }
}

/// The two that are alike but for their names and what a failure may lead to.
macro_rules! replacement {
    ($name:ident, $prefix:literal, $what:literal, [$($action:literal),*]) => {
        #[derive(Debug, Clone, Default, PartialEq, Args)]
        pub struct $name {
            #[arg(long = concat!($prefix, "-delay"), id = concat!($prefix, "-delay"), value_name = "DURATION",
                value_parser = time::parse_duration, help = concat!("Pause between two steps of ", $what))]
            delay: Option<Duration>,
            #[arg(long = concat!($prefix, "-failure-action"), id = concat!($prefix, "-failure-action"),
                value_name = "ACTION", value_parser = [$($action),*],
                help = concat!("What a failure does to ", $what, " (default pause)"))]
            failure_action: Option<String>,
            #[arg(long = concat!($prefix, "-max-failure-ratio"), id = concat!($prefix, "-max-failure-ratio"),
                value_name = "RATIO", help = concat!("The part of tasks, 0 to 1, that may fail in ", $what))]
            max_failure_ratio: Option<f64>,
            #[arg(long = concat!($prefix, "-monitor"), id = concat!($prefix, "-monitor"), value_name = "DURATION",
                value_parser = time::parse_duration,
                help = concat!("How long each task is watched for failure in ", $what, " (default 5s)"))]
            monitor: Option<Duration>,
            #[arg(long = concat!($prefix, "-order"), id = concat!($prefix, "-order"), value_name = "ORDER",
                value_parser = ["start-first", "stop-first"],
                help = concat!("Whether old or new tasks make way in ", $what, " (default stop-first)"))]
            order: Option<String>,
            #[arg(long = concat!($prefix, "-parallelism"), id = concat!($prefix, "-parallelism"),
                value_name = "NUMBER", help = concat!("Tasks replaced at once in ", $what, "; 0 is all (default 1)"))]
            parallelism: Option<u64>,
        }

        impl $name {
            pub fn apply(&self, config: &mut UpdateConfig) {
                set(&mut config.parallelism, &self.parallelism);
                set(&mut config.delay, &self.delay);
                set(&mut config.monitor, &self.monitor);
                set(&mut config.max_failure_ratio, &self.max_failure_ratio);
                match self.failure_action.as_deref() {
                    None => {}
                    Some("continue") => config.failure_action = FailureAction::Continue,
                    Some("rollback") => config.failure_action = FailureAction::Rollback,
                    Some(_) => config.failure_action = FailureAction::Pause,
                }
                match self.order.as_deref() {
                    None => {}
                    Some("start-first") => config.order = UpdateOrder::StartFirst,
                    Some(_) => config.order = UpdateOrder::StopFirst,
                }
            }
        }
    };
}

replacement!(Update, "update", "an update", ["pause", "continue", "rollback"]);
replacement!(Rollback, "rollback", "a rollback", ["pause", "continue"]);
