//! Block devices.

use silo_oci::runtime::{LinuxBlockIo, LinuxThrottleDevice};

use super::{Setting, invalid};
use crate::controller::Controller::Blkio;
use crate::error::Error;

/// The weights of version 1.
const WEIGHTS: std::ops::RangeInclusive<u16> = 10..=1000;

pub(super) fn v1(limits: &LinuxBlockIo, plan: &mut Vec<Setting>) -> Result<(), Error> {
    if let Some(weight) = checked(limits.weight)? {
        let setting = Setting::new(Blkio, "block io weight", "blkio.weight", weight);
        plan.push(setting.or("blkio.bfq.weight", weight));
    }
    if let Some(weight) = checked(limits.leaf_weight)? {
        plan.push(Setting::new(Blkio, "block io leaf weight", "blkio.leaf_weight", weight));
    }
    for device in &limits.weight_device {
        let value = |weight| format!("{}:{} {weight}", device.major, device.minor);
        if let Some(weight) = checked(device.weight)? {
            let value = value(weight);
            let setting =
                Setting::new(Blkio, "block io weight of a device", "blkio.weight_device", &value);
            plan.push(setting.or("blkio.bfq.weight_device", &value));
        }
        if let Some(weight) = checked(device.leaf_weight)? {
            plan.push(Setting::new(
                Blkio,
                "block io leaf weight of a device",
                "blkio.leaf_weight_device",
                value(weight),
            ));
        }
    }
    for (list, kind) in throttles(limits) {
        for device in list {
            plan.push(Setting::new(
                Blkio,
                "block io rate",
                format!("blkio.throttle.{}_device", kind.v1),
                format!("{}:{} {}", device.major, device.minor, device.rate),
            ));
        }
    }
    Ok(())
}

pub(super) fn v2(limits: &LinuxBlockIo, plan: &mut Vec<Setting>) -> Result<(), Error> {
    // The BFQ scheduler takes the weights as they are, the kernel's own controller another range.
    if let Some(weight) = checked(limits.weight)? {
        let setting = Setting::new(Blkio, "block io weight", "io.bfq.weight", weight);
        plan.push(setting.or("io.weight", format!("default {}", converted(weight))));
    }
    for device in &limits.weight_device {
        if let Some(weight) = checked(device.weight)? {
            let value = |weight| format!("{}:{} {weight}", device.major, device.minor);
            let setting = Setting::new(
                Blkio,
                "block io weight of a device",
                "io.bfq.weight",
                value(u64::from(weight)),
            );
            plan.push(setting.or("io.weight", value(converted(weight))));
        }
    }
    for (list, kind) in throttles(limits) {
        for device in list {
            let rate = if device.rate == 0 { "max".to_owned() } else { device.rate.to_string() };
            plan.push(Setting::new(
                Blkio,
                "block io rate",
                "io.max",
                format!("{}:{} {}={rate}", device.major, device.minor, kind.v2),
            ));
        }
    }
    Ok(())
}

/// A weight if one is given and not 0, which stands for none.
fn checked(weight: Option<u16>) -> Result<Option<u16>, Error> {
    match weight {
        None | Some(0) => Ok(None),
        Some(weight) if WEIGHTS.contains(&weight) => Ok(Some(weight)),
        Some(weight) => Err(invalid("block io weight", weight, "range is from 10 to 1000")),
    }
}

/// A weight of 10 to 1000 on the scale of version 2, 1 to 10000.
fn converted(weight: u16) -> u64 {
    1 + (u64::from(weight) - 10) * 9999 / 990
}

struct Kind {
    v1: &'static str,
    v2: &'static str,
}

fn throttles(limits: &LinuxBlockIo) -> [(&[LinuxThrottleDevice], Kind); 4] {
    let kind = |v1, v2| Kind { v1, v2 };
    [
        (&limits.throttle_read_bps_device, kind("read_bps", "rbps")),
        (&limits.throttle_write_bps_device, kind("write_bps", "wbps")),
        (&limits.throttle_read_iops_device, kind("read_iops", "riops")),
        (&limits.throttle_write_iops_device, kind("write_iops", "wiops")),
    ]
}

#[cfg(test)]
mod tests {
    use silo_oci::runtime::LinuxWeightDevice;

    use super::*;
    use crate::limits::Absent;

    fn limits() -> LinuxBlockIo {
        let rate = |rate| vec![LinuxThrottleDevice { major: 8, minor: 1, rate }];
        LinuxBlockIo {
            weight: Some(500),
            weight_device: vec![LinuxWeightDevice {
                major: 8,
                minor: 0,
                weight: Some(10),
                leaf_weight: None,
            }],
            throttle_read_bps_device: rate(1000),
            throttle_write_iops_device: rate(0),
            ..LinuxBlockIo::default()
        }
    }

    #[test]
    fn version_1() {
        let mut plan = Vec::new();
        v1(&limits(), &mut plan).unwrap();
        let written: Vec<_> = plan.iter().map(|s| format!("{} {}", s.file, s.value)).collect();
        assert_eq!(
            written,
            [
                "blkio.weight 500",
                "blkio.weight_device 8:0 10",
                "blkio.throttle.read_bps_device 8:1 1000",
                "blkio.throttle.write_iops_device 8:1 0",
            ]
        );
    }

    #[test]
    fn version_2() {
        let mut plan = Vec::new();
        v2(&limits(), &mut plan).unwrap();
        let written: Vec<_> = plan.iter().map(|s| format!("{} {}", s.file, s.value)).collect();
        assert_eq!(
            written,
            [
                "io.bfq.weight 500",
                "io.bfq.weight 8:0 10",
                "io.max 8:1 rbps=1000",
                "io.max 8:1 wiops=max",
            ]
        );
        let other = Absent::Other { file: "io.weight".into(), value: "default 4950".into() };
        assert_eq!(plan[0].absent, other);
        assert_eq!(converted(1000), 10_000);
        assert_eq!(converted(10), 1);
    }

    #[test]
    fn weights_have_a_range() {
        for weight in [9, 1001] {
            let limits = LinuxBlockIo { weight: Some(weight), ..LinuxBlockIo::default() };
            assert!(v1(&limits, &mut Vec::new()).is_err());
            assert!(v2(&limits, &mut Vec::new()).is_err());
        }
    }
}
