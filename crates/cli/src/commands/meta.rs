//! Commands about `silo` itself.

use crate::command::Invocation;
use crate::failure::{Failure, Outcome};
use crate::{doctor as host, shell};

use super::container::NoFlags;

/// `doctor`
pub(crate) async fn doctor(invocation: Invocation) -> Outcome {
    invocation.parse::<NoFlags>()?;
    let findings = host::examine();
    invocation.cli.print(&host::report(&findings))?;
    if findings.iter().any(host::Finding::is_failure) { Err(Failure::code(1)) } else { Ok(()) }
}

/// `completion`
pub(crate) async fn completion(invocation: Invocation) -> Outcome {
    let (_, words) = invocation.parse::<NoFlags>()?;
    match shell::completion(&words[0]) {
        Some(script) => invocation.cli.print(&script),
        None => {
            Err(Failure::new(format!("unknown shell {:?}: expected bash, zsh or fish", words[0])))
        }
    }
}

/// `man`
pub(crate) async fn man(invocation: Invocation) -> Outcome {
    let (_, words) = invocation.parse::<NoFlags>()?;
    let directory = std::path::Path::new(&words[0]);
    fs_err::create_dir_all(directory).map_err(|error| Failure::new(error.to_string()))?;
    for (name, page) in shell::man_pages() {
        fs_err::write(directory.join(name), page)
            .map_err(|error| Failure::new(error.to_string()))?;
    }
    Ok(())
}
