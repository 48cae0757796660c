//! Processor time.

use silo_oci::runtime::LinuxCpu;

use super::{Setting, invalid};
use crate::controller::Controller::Cpu;
use crate::error::Error;

/// The shares that version 1 takes.
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

/// The period where only a quota is given, in microseconds: the kernel's own default.
const PERIOD: u64 = 100_000;

pub(super) fn v1(limits: &LinuxCpu, plan: &mut Vec<Setting>) -> Result<(), Error> {
    if let Some(shares) = limits.shares.filter(|&shares| shares != 0) {
        // The kernel would silently take the nearest.
        if shares < *SHARES.start() {
            return Err(invalid("cpu shares", shares, "the minimum allowed cpu-shares is 2"));
        }
        if shares > *SHARES.end() {
            return Err(invalid("cpu shares", shares, "the maximum allowed cpu-shares is 262144"));
        }
        plan.push(Setting::new(Cpu, "cpu shares", "cpu.shares", shares));
    }
    // A period that is too short for the present quota is taken after the new quota is set; a
    // burst that is too long for it, likewise.
    if let Some(period) = limits.period.filter(|&period| period != 0) {
        plan.push(Setting::new(Cpu, "cpu period", "cpu.cfs_period_us", period).again());
    }
    if let Some(burst) = limits.burst {
        plan.push(Setting::new(Cpu, "cpu burst", "cpu.cfs_burst_us", burst).again());
    }
    if let Some(quota) = limits.quota.filter(|&quota| quota != 0) {
        plan.push(Setting::new(Cpu, "cpu quota", "cpu.cfs_quota_us", quota));
    }
    if let Some(period) = limits.realtime_period.filter(|&period| period != 0) {
        plan.push(Setting::new(Cpu, "real-time period", "cpu.rt_period_us", period).again());
    }
    if let Some(runtime) = limits.realtime_runtime.filter(|&runtime| runtime != 0) {
        plan.push(Setting::new(Cpu, "real-time runtime", "cpu.rt_runtime_us", runtime));
    }
    if let Some(idle) = limits.idle {
        plan.push(Setting::new(Cpu, "cpu idle", "cpu.idle", idle));
    }
    Ok(())
}

pub(super) fn v2(limits: &LinuxCpu, plan: &mut Vec<Setting>) -> Result<(), Error> {
    for (setting, value) in [
        ("real-time period", limits.realtime_period.unwrap_or(0) != 0),
        ("real-time runtime", limits.realtime_runtime.unwrap_or(0) != 0),
    ] {
        if value {
            return Err(invalid(setting, "", "cgroup version 2 has no real-time limits"));
        }
    }
    if let Some(idle) = limits.idle {
        plan.push(Setting::new(Cpu, "cpu idle", "cpu.idle", idle));
    }
    // An idle group has no weight.
    if limits.idle != Some(1)
        && let Some(shares) = limits.shares.filter(|&shares| shares != 0)
    {
        plan.push(Setting::new(Cpu, "cpu shares", "cpu.weight", weight(shares)));
    }
    if let Some(burst) = limits.burst {
        plan.push(Setting::new(Cpu, "cpu burst", "cpu.max.burst", burst).again());
    }
    let quota = limits.quota.filter(|&quota| quota != 0);
    let period = limits.period.filter(|&period| period != 0);
    if quota.is_some() || period.is_some() {
        let quota = match quota {
            Some(quota) if quota > 0 => quota.to_string(),
            _ => "max".to_owned(),
        };
        let value = format!("{quota} {}", period.unwrap_or(PERIOD));
        plan.push(Setting::new(Cpu, "cpu quota", "cpu.max", value));
    }
    Ok(())
}

/// The weight, 1 to 10000, for shares of version 1. The curve goes through (2, 1), (1024, 100)
/// and (262144, 10000), so that the defaults of both versions meet; runc and crun use the same.
fn weight(shares: u64) -> u64 {
    if shares <= *SHARES.start() {
        return 1;
    }
    if shares >= *SHARES.end() {
        return 10_000;
    }
    let log = f64::from(u32::try_from(shares).unwrap_or(u32::MAX)).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    // The curve stays within 1 to 10000 here, and the text of a whole number is exact.
    format!("{:.0}", 10f64.powf(exponent).ceil()).parse().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(plan: &[Setting]) -> Vec<(&str, &str)> {
        plan.iter().map(|setting| (&*setting.file, &*setting.value)).collect()
    }

    #[test]
    fn weights_follow_the_curve() {
        for (shares, expected) in
            [(0, 1), (1, 1), (2, 1), (512, 59), (1024, 100), (2048, 174), (262_144, 10_000)]
        {
            assert_eq!(weight(shares), expected, "{shares}");
        }
        assert!((2..5000).all(|shares| weight(shares) <= weight(shares + 1)));
    }

    #[test]
    fn both_versions() {
        let limits = LinuxCpu {
            shares: Some(1024),
            quota: Some(50_000),
            period: Some(100_000),
            burst: Some(10),
            ..LinuxCpu::default()
        };
        let mut plan = Vec::new();
        v1(&limits, &mut plan).unwrap();
        assert_eq!(
            written(&plan),
            [
                ("cpu.shares", "1024"),
                ("cpu.cfs_period_us", "100000"),
                ("cpu.cfs_burst_us", "10"),
                ("cpu.cfs_quota_us", "50000"),
            ]
        );
        plan.clear();
        v2(&limits, &mut plan).unwrap();
        assert_eq!(
            written(&plan),
            [("cpu.weight", "100"), ("cpu.max.burst", "10"), ("cpu.max", "50000 100000")]
        );
    }

    #[test]
    fn parts_of_a_quota() {
        for (quota, period, value) in [
            (Some(-1), None, "max 100000"),
            (None, Some(5000), "max 5000"),
            (Some(7000), None, "7000 100000"),
        ] {
            let mut plan = Vec::new();
            v2(&LinuxCpu { quota, period, ..LinuxCpu::default() }, &mut plan).unwrap();
            assert_eq!(written(&plan), [("cpu.max", value)]);
        }
    }

    #[test]
    fn senseless_limits() {
        let shares = |shares| LinuxCpu { shares: Some(shares), ..LinuxCpu::default() };
        assert!(v1(&shares(1), &mut Vec::new()).is_err());
        assert!(v1(&shares(262_145), &mut Vec::new()).is_err());
        let realtime = LinuxCpu { realtime_runtime: Some(1), ..LinuxCpu::default() };
        assert!(v2(&realtime, &mut Vec::new()).is_err());
    }
}
