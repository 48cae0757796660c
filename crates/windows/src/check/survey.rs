//! Programs and what they need: from the program's own directory through all its libraries.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use silo_pe::{ApiSets, Machine, Symbol};

use super::{Drive, Facts, Kind, Need};

/// Most programs of a report.
const MAX_PROGRAMS: usize = 2000;
/// Most libraries that come with a program.
const MAX_MODULES: usize = 2000;
/// How much is read for one survey: imported functions, and [`PER_FILE`] for each file.
const WORK: usize = 2_000_000;
const PER_FILE: usize = 500;
/// What a file counts that could not be read to its end.
const PER_DAMAGED: usize = 20_000;

/// A program that was looked at.
#[derive(Debug)]
pub struct Program {
    /// Where it is in the tree.
    pub path: PathBuf,
    /// What it is.
    pub facts: Rc<Facts>,
    /// What it needs that does not come with it.
    pub(crate) uses: Vec<Use>,
    /// Libraries beside it that cannot be loaded into it, with what they are.
    pub(crate) unfit: Vec<(String, String)>,
    /// Whether .NET Core comes with it.
    pub(crate) has_own_net: bool,
}

/// A library that a program needs.
#[derive(Debug)]
pub(crate) struct Use {
    /// Which of the survey's needs.
    pub(crate) need: usize,
    /// Which of its functions the program needs.
    pub(crate) functions: Vec<String>,
    /// Whether it is loaded on demand only.
    pub(crate) delayed: bool,
    /// The program's own library that needs it, if not the program itself.
    pub(crate) by: Option<String>,
}

/// Programs and their needs.
#[derive(Debug, Default)]
pub struct Survey {
    /// The programs.
    pub programs: Vec<Program>,
    /// Libraries that the system has to have.
    pub needs: Vec<Need>,
    /// What was left out.
    pub left_out: Vec<String>,
    known: HashMap<(bool, String), usize>,
    /// How much may still be read.
    left: usize,
    modules: HashMap<PathBuf, Rc<Facts>>,
}

/// Looks at programs. `search` are the directories of `PATH` that are not Windows' own.
pub fn survey(
    drive: &mut Drive,
    programs: &[PathBuf],
    search: &[Vec<String>],
) -> io::Result<Survey> {
    survey_within(drive, programs, search, WORK)
}

/// The same with a limit of its own to how much is read.
pub(super) fn survey_within(
    drive: &mut Drive,
    programs: &[PathBuf],
    search: &[Vec<String>],
    work: usize,
) -> io::Result<Survey> {
    let mut survey = Survey { left: work, ..Survey::default() };
    for path in programs.iter().take(MAX_PROGRAMS) {
        let Some(facts) = survey.facts(drive, path)? else { continue };
        let program = survey.program(drive, path, facts, search)?;
        survey.programs.push(program);
    }
    for need in &mut survey.needs {
        need.functions.sort_unstable();
        need.functions.dedup();
    }
    if programs.len() > MAX_PROGRAMS {
        let more = programs.len() - MAX_PROGRAMS;
        survey.left_out.push(format!("{more} programs beyond the first {MAX_PROGRAMS}"));
    }
    Ok(survey)
}

impl Survey {
    fn facts(&mut self, drive: &Drive, path: &Path) -> io::Result<Option<Rc<Facts>>> {
        if let Some(facts) = self.modules.get(path) {
            return Ok(Some(Rc::clone(facts)));
        }
        if self.left == 0 {
            let more = "what was too much to be read";
            if self.left_out.iter().all(|known| known != more) {
                self.left_out.push(more.to_owned());
            }
            return Ok(None);
        }
        let Some(file) = drive.open(path)? else { return Ok(None) };
        let facts = Rc::new(Facts::read(&file));
        let functions: usize = facts.imports.iter().map(|import| import.functions.len()).sum();
        let damaged = matches!(facts.kind, Kind::Damaged(_));
        let work = functions + if damaged { PER_DAMAGED } else { PER_FILE };
        self.left = self.left.saturating_sub(work);
        self.modules.insert(path.to_owned(), Rc::clone(&facts));
        Ok(Some(facts))
    }

    fn program(
        &mut self,
        drive: &mut Drive,
        path: &Path,
        facts: Rc<Facts>,
        search: &[Vec<String>],
    ) -> io::Result<Program> {
        let home = names(path.parent().unwrap_or(Path::new("")));
        let narrow = facts.is_narrow();
        let machine = facts.headers().map(|headers| headers.machine);
        let beside = |drive: &mut Drive, name: &str| {
            let mut path = home.clone();
            path.push(name.to_owned());
            drive.find(&path)
        };
        let mut has_own_net = false;
        if facts.is_host {
            let host = [&home[..], &["host".to_owned(), "fxr".to_owned()]].concat();
            has_own_net = beside(drive, "hostfxr.dll")?.is_some() || drive.find(&host)?.is_some();
        }
        let mut program = Program {
            path: path.to_owned(),
            facts: Rc::clone(&facts),
            uses: Vec::new(),
            unfit: Vec::new(),
            has_own_net,
        };
        // What a file for another processor needs does not matter.
        if !machine.is_some_and(|machine| matches!(machine, Machine::Amd64 | Machine::I386)) {
            return Ok(program);
        }
        let mut seen: HashSet<String> = HashSet::new();
        let mut open: VecDeque<(Option<String>, Rc<Facts>, bool)> = VecDeque::new();
        open.push_back((None, facts, false));
        while let Some((by, facts, delayed)) = open.pop_front() {
            for import in &facts.imports {
                let library = import.library.to_ascii_lowercase();
                let delayed = delayed || import.delayed;
                let own = if ApiSets::is_set(&library) {
                    None
                } else {
                    let mut found = beside(drive, &library)?;
                    for directory in search {
                        if found.is_some() {
                            break;
                        }
                        let mut path = directory.clone();
                        path.push(library.clone());
                        found = drive.find(&path)?;
                    }
                    found
                };
                let Some(own) = own else {
                    let functions = import.functions.iter().map(Symbol::to_string).collect();
                    self.need(&mut program, narrow, library, functions, delayed, by.clone());
                    continue;
                };
                if seen.len() >= MAX_MODULES || !seen.insert(library.clone()) {
                    continue;
                }
                let Some(facts) = self.facts(drive, &own)? else { continue };
                let fits = facts
                    .headers()
                    .is_some_and(|headers| Some(headers.machine) == machine || facts.clr.is_some());
                if fits {
                    open.push_back((Some(import.library.clone()), facts, delayed));
                } else {
                    let what = match &facts.kind {
                        Kind::Damaged(why) => why.clone(),
                        _ => format!("it is {}", facts.describe()),
                    };
                    program.unfit.push((import.library.clone(), what));
                }
            }
        }
        Ok(program)
    }

    fn need(
        &mut self,
        program: &mut Program,
        narrow: bool,
        library: String,
        functions: Vec<String>,
        delayed: bool,
        by: Option<String>,
    ) {
        let next = self.needs.len();
        let need = *self.known.entry((narrow, library.clone())).or_insert(next);
        if need == next {
            self.needs.push(Need { library, narrow, functions: Vec::new() });
        }
        if let Some(whole) = self.needs.get_mut(need) {
            whole.functions.extend(functions.iter().cloned());
        }
        program.uses.push(Use { need, functions, delayed, by });
    }
}

/// The names of a path in the tree.
pub(crate) fn names(path: &Path) -> Vec<String> {
    path.components()
        .filter_map(|component| match component {
            std::path::Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
            _ => None,
        })
        .collect()
}
