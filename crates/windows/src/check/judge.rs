//! From facts to a verdict.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;

use serde::{Deserialize, Serialize};
use silo_pe::{DotNet, FileKind, Headers, Machine, Subsystem};

use super::survey::Program;
use super::{Answer, Drive, Facts, Grade, Kind, Need, Reason, Verdict, known, worst};

/// Most names that a reason lists.
const MAX_NAMES: usize = 6;

/// What there is beside libraries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Surroundings {
    /// Whether Mono, which runs programs for .NET Framework, is there.
    pub mono: bool,
    /// Whether .NET Core is installed.
    pub dot_net: bool,
}

impl Surroundings {
    /// What there is on a drive.
    pub fn of(drive: &mut Drive) -> io::Result<Self> {
        Ok(Self {
            mono: drive.find(&["Windows", "mono", "mono-2.0"])?.is_some(),
            dot_net: drive.find(&["Program Files", "dotnet", "host", "fxr"])?.is_some(),
        })
    }
}

/// Judges a program. Without answers, libraries are taken to be there.
pub fn judge(
    program: &Program,
    path: String,
    needs: &[Need],
    answers: Option<&[Answer]>,
    around: &Surroundings,
) -> Verdict {
    let mut reasons = own_reasons(&program.facts, &path, around, program.has_own_net);
    for (library, what) in &program.unfit {
        reasons.push(Reason::new(
            Grade::No,
            format!("{library}, which comes with it, cannot be loaded: {what}"),
            "put the library for the same processor in its place",
        ));
    }
    if let Some(answers) = answers
        && reasons.iter().all(|reason| reason.grade < Grade::No)
    {
        library_reasons(program, needs, answers, around, &mut reasons);
    }
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.grade));
    Verdict {
        path,
        grade: worst(reasons.iter().map(|reason| reason.grade)),
        kind: program.facts.describe(),
        reasons,
    }
}

/// What a file's headers alone say against it.
fn own_reasons(facts: &Facts, path: &str, around: &Surroundings, has_own_net: bool) -> Vec<Reason> {
    let name = path.rsplit(['\\', '/']).next().unwrap_or(path);
    let headers = match &facts.kind {
        Kind::Executable(headers) => headers,
        Kind::Other(kind) => return other_reasons(*kind, name),
        Kind::Damaged(why) => return vec![Reason::new(Grade::No, why.clone(), "")],
    };
    let mut reasons = Vec::new();
    reasons.extend(header_reason(headers, facts));
    reasons.extend(known::program(name, facts.is_wine()));
    if let Some(clr) = &facts.clr
        && clr.kind == DotNet::Framework
        && !headers.is_library
    {
        reasons.push(if around.mono {
            Reason::new(Grade::Likely, "it runs with Mono, which is not all of .NET Framework", "")
        } else {
            Reason::new(
                Grade::No,
                format!("it needs .NET Framework ({}), which Wine does not have", clr.version),
                "build it for .NET 8 or later",
            )
        });
    }
    if facts.is_host {
        reasons.push(if around.dot_net || has_own_net {
            Reason::new(
                Grade::Likely,
                "parts of .NET's cryptography (ECDSA keys) do not work with Wine",
                "",
            )
        } else {
            Reason::new(
                Grade::Unlikely,
                "it needs the .NET runtime, which is neither beside it nor in C:\\Program Files\\dotnet",
                "publish it self-contained, or add the runtime to the image",
            )
        });
    }
    reasons
}

fn other_reasons(kind: FileKind, name: &str) -> Vec<Reason> {
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending).to_ascii_lowercase();
    if kind == FileKind::Other && matches!(ending.as_str(), "bat" | "cmd") {
        return Vec::new();
    }
    let advice = match kind {
        FileKind::Elf => "run it in a Linux container",
        FileKind::Windows16 | FileKind::Dos => "use a version for 32-bit or 64-bit Windows",
        _ if ending == "ps1" => "use cmd, or PowerShell 7 (pwsh.exe) with the script as argument",
        _ => "",
    };
    vec![Reason::new(Grade::No, format!("it is {}", kind.describe()), advice)]
}

fn header_reason(headers: &Headers, facts: &Facts) -> Option<Reason> {
    let managed = facts.clr.as_ref().is_some_and(|clr| clr.is_il_only);
    if !matches!(headers.machine, Machine::Amd64 | Machine::I386) && !managed {
        return Some(Reason::new(
            Grade::No,
            format!(
                "it is for another processor: {}, while containers here are for {}",
                headers.machine.describe(),
                Machine::Amd64.describe()
            ),
            "use the program's version for x64",
        ));
    }
    if headers.is_driver && !headers.is_wine {
        return Some(Reason::new(
            Grade::No,
            "it is a driver of the Windows kernel, which is not there",
            "",
        ));
    }
    match headers.subsystem {
        Subsystem::Efi => Some(Reason::new(Grade::No, "it is for a machine's firmware", "")),
        Subsystem::Gui if !headers.is_library && !headers.is_wine => Some(Reason::new(
            Grade::Likely,
            "it opens windows, which nobody sees: a container has no screen",
            "",
        )),
        _ => None,
    }
}

/// What speaks against a program by the libraries that it needs.
fn library_reasons(
    program: &Program,
    needs: &[Need],
    answers: &[Answer],
    around: &Surroundings,
    reasons: &mut Vec<Reason>,
) {
    let (mut lost, mut late) = (BTreeMap::new(), BTreeMap::new());
    let (mut functions, mut late_functions) = (BTreeSet::new(), BTreeSet::new());
    for one in &program.uses {
        let (Some(need), Some(answer)) = (needs.get(one.need), answers.get(one.need)) else {
            continue;
        };
        let library = need.library.as_str();
        if !answer.present {
            let missing = if one.delayed { &mut late } else { &mut lost };
            missing.entry(library).or_insert_with(|| one.by.clone());
            continue;
        }
        let is_there = around.mono && library == "mscoree.dll";
        if let Some(reason) = known::library(library).filter(|_| !is_there)
            && !reasons.contains(&reason)
        {
            reasons.push(reason);
        }
        let gone = answer.missing.iter().chain(&answer.stubs);
        let wanted: HashSet<&String> = one.functions.iter().collect();
        let gone = gone.filter(|name| wanted.contains(name));
        let list = if one.delayed { &mut late_functions } else { &mut functions };
        list.extend(gone.map(|name| format!("{library}!{name}")));
    }
    late.retain(|library, _| !lost.contains_key(library));
    for (library, by) in &lost {
        reasons.push(missing_library(library, by.as_deref()));
    }
    if !late.is_empty() {
        let names = listed(late.keys());
        reasons.push(Reason::new(
            Grade::Likely,
            format!("what needs {names} fails: loaded on demand, and not there"),
            "",
        ));
    }
    if !functions.is_empty() {
        let names = listed(functions.iter());
        reasons.push(Reason::new(
            Grade::Likely,
            format!("it ends if it calls what Wine does not have: {names}"),
            "",
        ));
    }
    if !late_functions.is_empty() {
        let names = listed(late_functions.iter());
        reasons.push(Reason::new(
            Grade::Likely,
            format!("what needs {names} fails: Wine does not have it"),
            "",
        ));
    }
}

/// What is said of a library that is nowhere.
pub(super) fn missing_library(library: &str, by: Option<&str>) -> Reason {
    let by = by.map(|by| format!(" ({by} needs it)")).unwrap_or_default();
    let text = format!("{library} is missing: neither Wine nor the program has it{by}");
    let advice = if known::is_graphics(library) {
        "the runtime is made without graphics".to_owned()
    } else if is_redistributable(library) {
        format!("add {library} of Microsoft's Visual C++ redistributable beside the program")
    } else {
        format!("add {library} to the image, beside the program")
    };
    Reason::new(Grade::No, text, advice)
}

fn is_redistributable(library: &str) -> bool {
    ["msvcp", "msvcr", "vcruntime", "mfc", "vcomp", "concrt", "atl"].iter().any(|start| {
        library.starts_with(start) && library[start.len()..].starts_with(char::is_numeric)
    })
}

/// Names with commas; the last ones as a number.
pub(super) fn listed(names: impl ExactSizeIterator<Item = impl std::fmt::Display>) -> String {
    let count = names.len();
    let shown: Vec<String> = names.take(MAX_NAMES).map(|name| name.to_string()).collect();
    let rest = count - shown.len();
    let shown = shown.join(", ");
    if rest == 0 { shown } else { format!("{shown} and {rest} more") }
}
