//! Options of a Windows container: names and paths as Windows has them, to those that the rest of
//! the engine works with, and back.

use silo_docker::containers::Config;
use silo_docker::host_config::HostConfig;
use silo_docker::mounts::Mount;
use silo_types::Error;
use silo_windows::path::WindowsPath;
use silo_windows::pipes;

/// Where drives other than C: are mounted.
const DRIVES: &str = "/drives";

/// Silo's base image that stands for one of Microsoft's.
pub(crate) fn substitute(name: &str) -> Option<String> {
    let (repository, tag) = match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, ""),
    };
    let repository = repository.strip_prefix("docker.io/").unwrap_or(repository);
    let base = match repository {
        "mcr.microsoft.com/windows/nanoserver" | "microsoft/nanoserver" => "nanoserver",
        "mcr.microsoft.com/windows/servercore" | "microsoft/windowsservercore" => "servercore",
        "mcr.microsoft.com/windows/server" | "mcr.microsoft.com/windows" => "server",
        _ => return None,
    };
    let release = match tag.split('-').next().unwrap_or(tag) {
        "" | "latest" | "ltsc2016" | "sac2016" | "1607" | "10.0.14393" => "ltsc2016",
        "ltsc2019" | "1809" | "10.0.17763" => "ltsc2019",
        "ltsc2022" | "10.0.20348" => "ltsc2022",
        "ltsc2025" | "10.0.26100" => "ltsc2025",
        other => match other.strip_prefix("10.0.")?.split('.').next()? {
            "14393" => "ltsc2016",
            "17763" => "ltsc2019",
            "20348" => "ltsc2022",
            "26100" => "ltsc2025",
            _ => return None,
        },
    };
    Some(format!("silo/{base}:{release}"))
}

/// Where a path is in the container's Linux root.
pub(crate) fn internal(path: &WindowsPath) -> String {
    let mut text = match path.drive {
        'C' => "/c".to_owned(),
        drive => format!("{DRIVES}/{}", drive.to_ascii_lowercase()),
    };
    for name in &path.names {
        text.push('/');
        text.push_str(name);
    }
    text
}

/// The Windows path of a place in the container's Linux root.
pub(crate) fn external(path: &str) -> String {
    if let Some(name) = pipe_of(path) {
        return pipes::path(&name);
    }
    let path = path.trim_start_matches('/');
    let (drive, rest) = match path.strip_prefix("drives/") {
        Some(rest) => rest.split_once('/').unwrap_or((rest, "")),
        None => path.split_once('/').unwrap_or((path, "")),
    };
    format!("{}:\\{}", drive.to_ascii_uppercase(), rest.replace('/', "\\"))
}

/// The name of the pipe for which a place in the container's Linux root stands.
pub(crate) fn pipe_of(path: &str) -> Option<String> {
    pipes::decode(path.strip_prefix(pipes::FOLDER)?.strip_prefix('/')?)
}

/// Where the socket is mounted to which a named pipe leads.
fn pipe_place(name: &str) -> String {
    format!("{}/{}", pipes::FOLDER, pipes::encode(name))
}

/// Refuses what cannot be the other end of a named pipe.
pub(crate) fn pipe_source(source: &str) -> Result<(), Error> {
    if pipes::name(source).is_some() {
        return Err(Error::invalid(format!(
            "{source}: a Linux host has no named pipes; give the Unix socket to which the pipe is to lead, as in /run/silo/silo.sock:\\\\.\\pipe\\docker_engine"
        )));
    }
    let is_socket = std::path::Path::new(source).is_absolute()
        && rustix::fs::stat(source).is_ok_and(|stat| {
            rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Socket
        });
    if is_socket {
        return Ok(());
    }
    Err(Error::invalid(format!("{source}: a named pipe leads to a Unix socket, and this is none")))
}

/// A destination of a mount: not the root of C:, which is the image's.
fn destination(path: &str) -> Result<String, Error> {
    let parsed = WindowsPath::parse(path)
        .map_err(|error| Error::invalid(format!("invalid mount path: {error}")))?;
    if parsed.drive == 'C' && parsed.is_root() {
        // docker wording
        return Err(Error::invalid(
            "invalid specification: destination path cannot be 'c:' or 'c:\\'",
        ));
    }
    if parsed.drive != 'C' && !parsed.is_root() {
        return Err(Error::invalid(format!(
            "invalid mount path: '{path}': on a drive of its own a volume is mounted at the root, {}:\\",
            parsed.drive
        )));
    }
    Ok(internal(&parsed))
}

/// Splits `source:destination[:mode]`, where either may begin with a drive.
fn split_bind(bind: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for part in bind.split(':') {
        let drive = parts.last().is_some_and(|last| {
            last.len() == 1
                && last.chars().all(|c| c.is_ascii_alphabetic())
                && (part.is_empty() || part.starts_with(['\\', '/']))
        });
        match parts.last_mut() {
            Some(last) if drive => {
                last.push(':');
                last.push_str(part);
            }
            _ => parts.push(part.to_owned()),
        }
    }
    parts
}

fn translate_bind(bind: &str) -> Result<String, Error> {
    let invalid = || Error::invalid(format!("invalid volume specification: '{bind}'")); // docker wording
    let parts = split_bind(bind);
    if let Some(name) = parts.get(1).and_then(|target| pipes::name(target)) {
        pipe_source(&parts[0])?;
        return match parts.get(2).map(String::as_str) {
            None | Some("" | "rw") if parts.len() <= 3 => {
                Ok(format!("{}:{}", parts[0], pipe_place(name)))
            }
            // A pipe has no files that could be kept from being written.
            _ => Err(invalid()),
        };
    }
    match &parts[..] {
        [only] => destination(only),
        [source, target] => Ok(format!("{source}:{}", destination(target)?)),
        [source, target, mode] => Ok(format!("{source}:{}:{mode}", destination(target)?)),
        _ => Err(invalid()),
    }
}

/// Makes a mount of the socket out of one of a named pipe.
fn translate_pipe(mount: &mut Mount) -> Result<(), Error> {
    // docker wording
    let wrong =
        |cause: &str| Error::invalid(format!("invalid mount config for type \"npipe\": {cause}"));
    if mount.read_only {
        return Err(wrong("field ReadOnly must not be specified"));
    }
    let Some(name) = pipes::name(&mount.target) else {
        return Err(wrong(&format!("'{}' is not a valid pipe path", mount.target)));
    };
    pipe_source(&mount.source).map_err(|error| wrong(error.message()))?;
    mount.target = pipe_place(name);
    mount.kind = "bind".into();
    Ok(())
}

/// Puts internal paths in place of Windows paths, and refuses what Windows containers have not.
pub(crate) fn translate(config: &mut Config, host_config: &mut HostConfig) -> Result<(), Error> {
    let none = |what: &str| Err(Error::invalid(format!("Windows does not support {what}"))); // docker wording
    if host_config.privileged {
        return none("privileged mode");
    }
    if host_config.readonly_rootfs {
        return none("root filesystem in read-only mode");
    }
    if !host_config.tmpfs.is_empty() {
        return none("tmpfs mounts");
    }
    if !host_config.cap_add.is_empty() || !host_config.cap_drop.is_empty() {
        return none("capabilities");
    }
    if host_config.init == Some(true) {
        return none("an init process of its own: every container has one");
    }
    for bind in host_config.binds.make().iter_mut() {
        *bind = translate_bind(bind)?;
    }
    for mount in host_config.mounts.make().iter_mut() {
        if mount.kind == "tmpfs" {
            return none("tmpfs mounts");
        }
        if mount.kind == "npipe" {
            translate_pipe(mount)?;
        } else {
            mount.target = destination(&mount.target)?;
        }
    }
    finish(config)?;
    let pids = host_config.resources.pids_limit.unwrap_or(0);
    if pids <= 0 {
        host_config.resources.pids_limit = Some(super::PIDS_LIMIT);
    }
    Ok(())
}

/// Puts internal paths in place of those of volumes; ones that are internal stay.
pub(crate) fn finish(config: &mut Config) -> Result<(), Error> {
    let volumes: Vec<String> = config.volumes.keys().cloned().collect();
    for path in volumes {
        if path.starts_with("/c/") || path.starts_with(DRIVES) {
            continue;
        }
        let place = destination(&path)?;
        if let Some(value) = config.volumes.make().remove(&path) {
            config.volumes.make().entry(place).or_insert(value);
        }
    }
    merge_names(config.env.make());
    if !config.working_dir.is_empty() {
        WindowsPath::parse(&config.working_dir).map_err(|error| {
            Error::invalid(format!("the working directory is invalid: {error}"))
        })?;
    }
    Ok(())
}

/// Environment names have no case in Windows: of those that are equal the last value and the
/// first spelling stay.
pub(crate) fn merge_names(variables: &mut Vec<String>) {
    let mut merged: Vec<String> = Vec::with_capacity(variables.len());
    for variable in variables.drain(..) {
        let name = variable.split('=').next().unwrap_or_default().to_owned();
        let known = merged.iter_mut().find(|known| {
            known.split('=').next().unwrap_or_default().to_uppercase() == name.to_uppercase()
        });
        match known {
            Some(known) => {
                let spelled = known[..name.len().min(known.len())].to_owned();
                *known = format!("{spelled}{}", &variable[name.len()..]);
            }
            None => merged.push(variable),
        }
    }
    *variables = merged;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases_stand_in() {
        for (name, base) in [
            ("mcr.microsoft.com/windows/servercore:ltsc2019", Some("silo/servercore:ltsc2019")),
            ("mcr.microsoft.com/windows/nanoserver:1809-amd64", Some("silo/nanoserver:ltsc2019")),
            ("microsoft/windowsservercore", Some("silo/servercore:ltsc2016")),
            ("microsoft/nanoserver:sac2016", Some("silo/nanoserver:ltsc2016")),
            ("mcr.microsoft.com/windows/server:10.0.20348.2700", Some("silo/server:ltsc2022")),
            ("mcr.microsoft.com/windows/servercore:ltsc2099", None),
            ("mcr.microsoft.com/windows/iotcore:1809", None),
            ("busybox", None),
        ] {
            assert_eq!(substitute(name).as_deref(), base, "{name}");
        }
    }

    #[test]
    fn binds_with_drives() {
        for (bind, translated) in [
            ("/srv/data:C:\\data", Ok("/srv/data:/c/data")),
            ("/srv/data:c:/Data/x:ro", Ok("/srv/data:/c/Data/x:ro")),
            ("name:D:", Ok("name:/drives/d")),
            ("name:d:\\:ro", Ok("name:/drives/d:ro")),
            ("C:\\data", Ok("/c/data")),
            ("/srv:/data", Ok("/srv:/c/data")),
        ] {
            assert_eq!(translate_bind(bind).as_deref().map_err(|_| ()), translated, "{bind}");
        }
        for bad in [
            "/srv:C:\\",
            "/srv:C:",
            "/srv:D:\\x",
            "/srv:\\\\?\\unix\\etc",
            "/srv:data",
            "a:b:c:d",
            "/srv:C:\\nul",
        ] {
            assert!(translate_bind(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn pipes_lead_to_sockets() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let source = path.to_str().unwrap();
        let place = "/run/silo-pipes/docker_engine";
        assert_eq!(external(place), "\\\\.\\pipe\\docker_engine");
        for (mode, fits) in [("", true), (":rw", true), (":ro", false), (":rw:rw", false)] {
            let bind = format!("{source}:\\\\.\\pipe\\docker_engine{mode}");
            let want = fits.then(|| format!("{source}:{place}"));
            assert_eq!(translate_bind(&bind).ok(), want, "{mode}");
        }
        for (bind, why) in [
            ("/tmp:\\\\.\\pipe\\x", "Unix socket"),
            ("/no/such:\\\\.\\pipe\\x", "Unix socket"),
            ("name:\\\\.\\pipe\\x", "Unix socket"),
            ("\\\\.\\pipe\\x:\\\\.\\pipe\\x", "has no named pipes"),
        ] {
            let error = translate_bind(bind).unwrap_err();
            assert!(error.message().contains(why), "{bind}: {error}");
        }
        let mount = |target: &str, read_only| Mount {
            kind: "npipe".into(),
            source: source.into(),
            target: target.into(),
            read_only,
            ..Mount::default()
        };
        let mut good = mount("//./pipe/docker_engine", false);
        translate_pipe(&mut good).unwrap();
        assert_eq!((good.kind.as_str(), good.target.as_str()), ("bind", place));
        assert!(translate_pipe(&mut mount("\\\\.\\pipe\\x", true)).is_err());
        assert!(translate_pipe(&mut mount("C:\\x", false)).is_err());
    }

    #[test]
    fn places_have_windows_names() {
        for (place, path) in [("/c/data/x", "C:\\data\\x"), ("/drives/d", "D:\\"), ("/c", "C:\\")] {
            assert_eq!(external(place), path);
        }
    }

    #[test]
    fn variables_have_no_case() {
        let mut list = ["Path=a", "X=1", "PATH=b=c"].map(str::to_owned).to_vec();
        merge_names(&mut list);
        assert_eq!(list, ["Path=b=c", "X=1"]);
    }
}
