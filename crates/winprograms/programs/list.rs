/// Takes the place of Wine's own in the runtime.
static BOOT: Program = Program { name: "wineboot.exe", sources: &["boot.c"], libraries: BASE };

/// What lies in `C:\Windows\System32` of base images.
static PROGRAMS: &[Program] =
    &[Program { name: "silo-run.exe", sources: &["run.c"], libraries: BASE }];
