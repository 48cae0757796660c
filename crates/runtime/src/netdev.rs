//! Moving network devices of the host into a container's network namespace.

use std::collections::BTreeMap;

use rustix::process::Pid;
use silo_oci::runtime::LinuxNetDevice;

use crate::error::Error;

/// Moves each device, under its new name if it has one.
pub(crate) fn move_all(devices: &BTreeMap<String, LinuxNetDevice>, _pid: Pid) -> Result<(), Error> {
    let names: Vec<&str> = devices.keys().map(String::as_str).collect();
    Err(Error::invalid(format!("linux.netDevices: cannot move {}", names.join(", "))))
}
