//! Health checks: Docker's timing and counting, as a value that the driver feeds.
//!
//! Failures within the start period do not count while the container is starting; the first success ends
//! the start period.
//! Running a probe and waiting are the driver's; this file only decides.

use std::time::Duration;

use skep_image::ImageConfig;
use skep_model::{HealthCheck, HealthTest};

use super::step::Health;

/// A health check with every default filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub argv: Vec<String>,
    /// From the end of one probe to the start of the next.
    pub interval: Duration,
    pub timeout: Duration,
    /// Consecutive failures that make it unhealthy.
    pub retries: u32,
    pub start_period: Duration,
    /// The interval within the start period.
    pub start_interval: Duration,
}

/// Output of a probe that is kept, in bytes.
pub const OUTPUT_BYTES_MAX: usize = 4096;

impl Check {
    /// The service's check, with what it does not say taken from the image's; `None` when there is none.
    pub fn resolve(spec: Option<&HealthCheck>, image: &ImageConfig) -> Option<Self> {
        let empty = HealthCheck::default();
        let spec = spec.unwrap_or(&empty);
        let shell = |command: &str| {
            let default = || vec!["/bin/sh".to_owned(), "-c".to_owned()];
            let mut argv = if image.shell.is_empty() { default() } else { image.shell.clone() };
            argv.push(command.to_owned());
            argv
        };
        let of_image = image.healthcheck.as_ref();
        let argv = match &spec.test {
            Some(HealthTest::Disabled) => return None,
            Some(HealthTest::Exec(argv)) => argv.clone(),
            Some(HealthTest::Shell(command)) => shell(command),
            None => match of_image?.test.split_first() {
                Some((kind, argv)) if kind == "CMD" => argv.to_vec(),
                Some((kind, rest)) if kind == "CMD-SHELL" => shell(&rest.join(" ")),
                _ => return None,
            },
        };
        let nanos = |value: Option<i64>| {
            value.and_then(|ns| u64::try_from(ns).ok()).filter(|ns| *ns > 0).map(Duration::from_nanos)
        };
        let pick = |own: Option<Duration>, image: Option<i64>, default: u64| {
            own.filter(|own| !own.is_zero()).or(nanos(image)).unwrap_or(Duration::from_secs(default))
        };
        let retries =
            spec.retries.filter(|n| *n > 0).or(of_image.map(|check| check.retries).filter(|n| *n > 0)).unwrap_or(3);
        Some(Self {
            argv,
            interval: pick(spec.interval, of_image.map(|check| check.interval_ns), 30),
            timeout: pick(spec.timeout, of_image.map(|check| check.timeout_ns), 30),
            retries,
            start_period: pick(spec.start_period, of_image.map(|check| check.start_period_ns), 0),
            start_interval: pick(spec.start_interval, of_image.map(|check| check.start_interval_ns), 5),
        })
    }

    /// How long to wait before the next probe.
    pub fn pause(&self, progress: &Progress, since_start: Duration) -> Duration {
        let starting = progress.health == Health::Starting && since_start < self.start_period;
        match starting {
            // The last probe of the start period falls on its end.
            true => self.start_interval.min(self.start_period - since_start),
            false => self.interval,
        }
    }
}

/// What the probes so far have shown.
#[derive(Debug, Clone)]
pub struct Progress {
    pub health: Health,
    pub failing_streak: u32,
    /// The last probe's exit code (-1 when it ran out of time) and output.
    pub last: Option<(i32, String)>,
}

impl Progress {
    pub fn new() -> Self {
        Self { health: Health::Starting, failing_streak: 0, last: None }
    }

    /// Takes one probe's result into account.
    pub fn record(&mut self, check: &Check, exit_code: i32, output: String, since_start: Duration) {
        self.last = Some((exit_code, output));
        if exit_code == 0 {
            (self.health, self.failing_streak) = (Health::Healthy, 0);
            return;
        }
        if self.health == Health::Starting && since_start < check.start_period {
            return;
        }
        self.failing_streak += 1;
        if self.failing_streak >= check.retries {
            self.health = Health::Unhealthy;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(start_period: u64) -> Check {
        let spec = HealthCheck {
            test: Some(HealthTest::Shell("true".into())),
            start_period: Some(Duration::from_secs(start_period)),
            ..HealthCheck::default()
        };
        Check::resolve(Some(&spec), &ImageConfig::default()).unwrap()
    }

    #[test]
    fn defaults_are_dockers() {
        let check = check(0);
        assert_eq!(check.argv, ["/bin/sh", "-c", "true"]);
        assert_eq!(
            (check.interval, check.timeout, check.retries),
            (Duration::from_secs(30), Duration::from_secs(30), 3)
        );
        assert_eq!(check.pause(&Progress::new(), Duration::ZERO), Duration::from_secs(30));
    }

    #[test]
    fn failures_count_after_the_start_period_or_the_first_success() {
        let check = check(60);
        let (early, late) = (Duration::from_secs(10), Duration::from_secs(70));
        let mut progress = Progress::new();
        (0..10).for_each(|_| progress.record(&check, 1, String::new(), early));
        assert_eq!(progress.health, Health::Starting);
        progress.record(&check, 0, String::new(), early);
        assert_eq!(progress.health, Health::Healthy);
        (0..2).for_each(|_| progress.record(&check, 1, String::new(), early));
        assert_eq!(progress.health, Health::Healthy);
        progress.record(&check, -1, String::new(), late);
        assert_eq!(progress.health, Health::Unhealthy);
    }

    #[test]
    fn the_service_can_switch_the_images_check_off_or_change_a_part() {
        let image = ImageConfig {
            healthcheck: Some(skep_image::Healthcheck {
                test: vec!["CMD".into(), "ping".into()],
                interval_ns: 1_000_000_000,
                ..Default::default()
            }),
            ..ImageConfig::default()
        };
        let off = HealthCheck { test: Some(HealthTest::Disabled), ..HealthCheck::default() };
        assert_eq!(Check::resolve(Some(&off), &image), None);
        let slower = HealthCheck { timeout: Some(Duration::from_secs(3)), ..HealthCheck::default() };
        let merged = Check::resolve(Some(&slower), &image).unwrap();
        assert_eq!(
            (merged.argv, merged.interval, merged.timeout),
            (vec!["ping".to_owned()], Duration::from_secs(1), Duration::from_secs(3))
        );
    }
}
