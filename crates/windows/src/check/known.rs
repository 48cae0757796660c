//! What files do not say of themselves: programs and libraries known to need what Wine lacks.

use super::{Grade, Reason};

/// Something that is known by its name.
struct Known {
    /// In lower case.
    name: &'static str,
    grade: Grade,
    text: &'static str,
    advice: &'static str,
}

const IIS: &str = "serve by another program, such as nginx, or by Kestrel of .NET 8 and later";

/// Programs, wherever they come from.
const PROGRAMS: &[Known] = &[
    Known {
        name: "w3wp.exe",
        grade: Grade::No,
        text: "IIS needs the HTTP.sys driver of the Windows kernel",
        advice: IIS,
    },
    Known {
        name: "inetinfo.exe",
        grade: Grade::No,
        text: "IIS needs the HTTP.sys driver of the Windows kernel",
        advice: IIS,
    },
    Known {
        name: "iisexpress.exe",
        grade: Grade::No,
        text: "IIS Express needs the HTTP.sys driver of the Windows kernel",
        advice: IIS,
    },
    Known {
        name: "sqlservr.exe",
        grade: Grade::No,
        text: "SQL Server for Windows does not run with Wine",
        advice: "use SQL Server's image for Linux beside this container",
    },
    Known {
        name: "msiexec.exe",
        grade: Grade::Likely,
        text: "packages (MSI) with actions of their own may fail",
        advice: "unpack the package when the image is made: msiexec /a PACKAGE /qn TARGETDIR=C:\\app",
    },
];

/// Programs of Wine's that only have a name. One that Silo replaced has not Wine's mark.
const PLACEHOLDERS: &[Known] = &[
    Known {
        name: "powershell.exe",
        grade: Grade::No,
        text: "Windows PowerShell is not there: Wine's powershell.exe does nothing",
        advice: "use cmd, or add PowerShell 7 (pwsh.exe) to the image",
    },
    Known {
        name: "netsh.exe",
        grade: Grade::Unlikely,
        text: "Wine's netsh.exe does nothing",
        advice: "",
    },
    Known {
        name: "wevtutil.exe",
        grade: Grade::Unlikely,
        text: "Wine's wevtutil.exe does nothing",
        advice: "",
    },
    Known {
        name: "schtasks.exe",
        grade: Grade::Unlikely,
        text: "Wine's schtasks.exe does little, and no task is ever run",
        advice: "",
    },
    Known {
        name: "dism.exe",
        grade: Grade::Unlikely,
        text: "Wine's dism.exe does nothing: Windows has no features to be turned on here",
        advice: "",
    },
];

/// Libraries that Wine has in part, or that say what a program is about.
const LIBRARIES: &[Known] = &[
    Known {
        name: "mscoree.dll",
        grade: Grade::Unlikely,
        text: "it starts .NET Framework, which Wine does not have",
        advice: "use .NET 8 or later",
    },
    Known {
        name: "fltlib.dll",
        grade: Grade::Unlikely,
        text: "file system filters need drivers of the Windows kernel",
        advice: "",
    },
    Known {
        name: "virtdisk.dll",
        grade: Grade::Unlikely,
        text: "virtual disks need drivers of the Windows kernel",
        advice: "",
    },
    Known {
        name: "computecore.dll",
        grade: Grade::Unlikely,
        text: "Hyper-V and containers of Windows are not there",
        advice: "",
    },
    Known {
        name: "vmcompute.dll",
        grade: Grade::Unlikely,
        text: "Hyper-V and containers of Windows are not there",
        advice: "",
    },
    Known {
        name: "clusapi.dll",
        grade: Grade::Unlikely,
        text: "failover clusters of Windows are not there",
        advice: "",
    },
    Known {
        name: "httpapi.dll",
        grade: Grade::Likely,
        text: "HTTP.sys is there in part: no TLS, and requests have to name the port that the container has",
        advice: "publish the port under its own number: -p 8080:8080",
    },
];

/// Graphics that the runtime is made without.
const GRAPHICS: &[&str] =
    &["d2d1", "d3d", "dxgi", "ddraw", "dcomp", "opengl32", "glu32", "vulkan-1", "opencl"];

fn look_up(table: &[Known], name: &str) -> Option<Reason> {
    let found = table.iter().find(|known| known.name.eq_ignore_ascii_case(name))?;
    Some(Reason::new(found.grade, found.text, found.advice))
}

/// What is known of a program by its name; `is_wine` if it is Wine's own.
pub(super) fn program(name: &str, is_wine: bool) -> Option<Reason> {
    if is_wine {
        return look_up(PLACEHOLDERS, name);
    }
    if name.eq_ignore_ascii_case("powershell.exe") {
        return Some(Reason::new(
            Grade::No,
            "Windows PowerShell needs .NET Framework",
            "use cmd, or add PowerShell 7 (pwsh.exe) to the image",
        ));
    }
    look_up(PROGRAMS, name)
}

/// What is known of a program that needs a library.
pub(super) fn library(name: &str) -> Option<Reason> {
    look_up(LIBRARIES, name)
}

/// Whether a library is one of graphics.
pub(super) fn is_graphics(name: &str) -> bool {
    GRAPHICS.iter().any(|start| name.starts_with(start))
}
