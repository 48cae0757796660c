/// Takes the place of Wine's own in the runtime.
static BOOT: Program = Program { name: "wineboot.exe", sources: &["boot.c"], libraries: BASE };

/// What the engine runs before it commits a container.
static SAVE: Program = Program { name: "silo-save.exe", sources: &["save.c", "registry.c"], libraries: BASE };

/// What the engine runs to see the processes of a container.
static PROCESSES: Program =
    Program { name: "silo-list.exe", sources: &["processes.c"], libraries: BASE };

/// What Wine's cmd gets in place of a library of Wine's.
static SHELL: Program = Program { name: "silocmd.dll", sources: &["shell.c"], libraries: BASE };

/// Text, memory and the entry that commands share.
const TOOL: &[&str] = &["msvcrt", "kernel32", "ntdll"];
const ADVANCED: &[&str] = &["msvcrt", "kernel32", "ntdll", "advapi32"];

/// What lies in `C:\Windows\System32` of base images.
static PROGRAMS: &[Program] = &[
    Program { name: "silo-pipe.exe", sources: &["pipe.c"], libraries: BASE },
    Program {
        name: "silo-run.exe",
        sources: &[
            "run.c",
            "run_control.c",
            "run_streams.c",
            "run_console.c",
            "run_registry.c",
            "run_services.c",
            "run_narrow.c",
            "registry.c",
        ],
        libraries: BASE,
    },
    Program {
        name: "certutil.exe",
        sources: &["rt.c", "certutil.c", "certstore.c"],
        libraries: &["msvcrt", "kernel32", "ntdll", "bcrypt"],
    },
    Program { name: "choice.exe", sources: &["rt.c", "choice.c"], libraries: TOOL },
    Program {
        name: "curl.exe",
        sources: &["rt.c", "curl.c"],
        libraries: &["msvcrt", "kernel32", "ntdll", "winhttp"],
    },
    Program { name: "forfiles.exe", sources: &["rt.c", "common/walk.c", "forfiles.c"], libraries: TOOL },
    Program { name: "icacls.exe", sources: &["rt.c", "common/walk.c", "icacls.c"], libraries: TOOL },
    Program { name: "mklink.exe", sources: &["rt.c", "mklink.c"], libraries: TOOL },
    Program {
        name: "nslookup.exe",
        sources: &["rt.c", "nslookup.c"],
        libraries: &["msvcrt", "kernel32", "ntdll", "ws2_32", "iphlpapi"],
    },
    Program { name: "powershell.exe", sources: &["rt.c", "powershell.c"], libraries: TOOL },
    Program { name: "robocopy.exe", sources: &["rt.c", "common/walk.c", "robocopy.c"], libraries: TOOL },
    Program { name: "sc.exe", sources: &["rt.c", "sc.c"], libraries: ADVANCED },
    Program { name: "setx.exe", sources: &["rt.c", "setx.c"], libraries: ADVANCED },
    Program { name: "systeminfo.exe", sources: &["rt.c", "systeminfo.c"], libraries: ADVANCED },
    Program { name: "takeown.exe", sources: &["rt.c", "common/walk.c", "takeown.c"], libraries: TOOL },
    Program {
        name: "tar.exe",
        sources: &["rt.c", "common/walk.c", "tar.c", "untar.c", "unzip.c", "inflate.c", "deflate.c"],
        libraries: TOOL,
    },
    Program { name: "timeout.exe", sources: &["rt.c", "timeout.c"], libraries: TOOL },
    Program { name: "tree.exe", sources: &["rt.c", "common/walk.c", "tree.c"], libraries: TOOL },
    Program { name: "where.exe", sources: &["rt.c", "common/walk.c", "where.c"], libraries: TOOL },
    Program { name: "whoami.exe", sources: &["rt.c", "whoami.c"], libraries: ADVANCED },
];
