//! Which files a project is made of, where it is, and what its variables are.
//!
//! The order of precedence is Docker Compose's: `-f`, then `COMPOSE_FILE`, then the first known name
//! upwards from the current directory; the environment over env files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::canonical::clean;
use super::diagnostic::Diagnostic;
use super::environment;
use super::paths;
use super::report::Report;
use super::shell;
use super::{Env, Files, LoadErrorKind, LoadOptions};
use crate::naming::normal_name;

/// The names of compose files, best first.
const FILE_NAMES: [&str; 4] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
];
/// The names of files put on top of them.
const OVERRIDE_NAMES: [&str; 4] = [
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
];

/// Why nothing can be loaded.
pub(crate) type Failure = Box<(LoadErrorKind, Diagnostic)>;

/// What was found.
#[derive(Debug)]
pub(crate) struct Located {
    /// The compose files, absolute; `-` is standard input.
    pub(crate) files: Vec<PathBuf>,
    /// The env files that were asked for, absolute.
    pub(crate) env_files: Vec<PathBuf>,
    /// The project's directory, absolute.
    pub(crate) directory: PathBuf,
    /// The variables for interpolation.
    pub(crate) variables: BTreeMap<String, String>,
    /// The name that was asked for.
    pub(crate) name: Option<String>,
    /// The profiles that were asked for.
    pub(crate) profiles: Vec<String>,
}

/// The variables as they are before compose files are looked for.
pub(crate) fn variables(
    options: &LoadOptions,
    env: &Env,
    files: &dyn Files,
    report: &mut Report,
) -> Result<BTreeMap<String, String>, Failure> {
    let absolute = |path: &Path| env.current_dir.join(path);
    let fixed = options.directory.as_deref().map(absolute);
    let chosen: Vec<PathBuf> = options.files.iter().map(|path| absolute(path)).collect();
    let start = directory(fixed.as_ref(), &chosen, env);
    let mut variables = env.variables.clone();
    let asked = env_files(options, env);
    read_env_files(asked.as_deref(), &start, &mut variables, env, files, report)?;
    Ok(variables)
}

/// Finds files, directory and variables.
pub(crate) fn locate(
    options: &LoadOptions,
    env: &Env,
    files: &dyn Files,
    report: &mut Report,
) -> Result<Located, Failure> {
    let absolute = |path: &Path| -> PathBuf {
        if path == Path::new("-") {
            return path.to_path_buf();
        }
        let joined = env.current_dir.join(path);
        match joined.to_str() {
            Some(text) => PathBuf::from(clean(text)),
            // It is refused further down, by its own name.
            None => joined.components().collect(),
        }
    };
    let mut variables = env.variables.clone();
    variables
        .entry("PWD".to_owned())
        .or_insert_with(|| env.current_dir.to_string_lossy().into_owned());
    let fixed = options.directory.as_deref().map(absolute);
    let env_files = env_files(options, env);

    let mut chosen: Vec<PathBuf> = options.files.iter().map(|path| absolute(path)).collect();
    let start = directory(fixed.as_ref(), &chosen, env);
    check_names(env_files.iter().flatten())?;
    read_env_files(
        env_files.as_deref(),
        &start,
        &mut variables,
        env,
        files,
        report,
    )?;
    if chosen.is_empty()
        && let Some(list) = variables
            .get("COMPOSE_FILE")
            .filter(|list| !list.is_empty())
    {
        let separator = variables
            .get("COMPOSE_PATH_SEPARATOR")
            .filter(|separator| !separator.is_empty())
            .map_or(":", String::as_str);
        chosen = list
            .split(separator)
            .map(|path| absolute(Path::new(path)))
            .collect();
    }
    if chosen.is_empty() {
        let start = directory(fixed.as_ref(), &chosen, env);
        chosen = discover(&start, files, report).ok_or_else(|| {
            let names = FILE_NAMES.join(", ");
            let mut diagnostic = Diagnostic::error("no compose file was found")
                .note(format!(
                    "looked for {names} in {} and above",
                    shell::word(&start)
                ))
                .hint("name one with -f, or change to the project's directory");
            let mut places = start
                .ancestors()
                .flat_map(|it| FILE_NAMES.map(|name| it.join(name)));
            let link = places.find_map(|path| Some((files.link(&path)?, path)));
            if let Some((target, path)) = link {
                let (path, target) = (path.display(), target.display());
                diagnostic = diagnostic.note(format!(
                    "{path} is a symbolic link to `{target}`, where nothing is"
                ));
            }
            Box::new((LoadErrorKind::NotFound, diagnostic))
        })?;
    }
    let directory = directory(fixed.as_ref(), &chosen, env);
    check_names(std::iter::once(&directory).chain(&chosen))?;
    read_env_files(
        env_files.as_deref(),
        &directory,
        &mut variables,
        env,
        files,
        report,
    )?;
    let mut profiles = options.profiles.clone();
    if profiles.is_empty() {
        // Nothing listed is the profile without a name, as in Compose: `profiles: ["${P:-}"]` is on then.
        let listed = variables.get("COMPOSE_PROFILES").map_or("", String::as_str);
        profiles = listed
            .split(',')
            .map(str::trim)
            .map(str::to_owned)
            .collect();
    }
    let name = options
        .name
        .clone()
        .filter(|name| !name.is_empty())
        .or_else(|| variables.get("COMPOSE_PROJECT_NAME").cloned())
        .filter(|name| !name.is_empty());
    if let Some(name) = &name
        && *name != normal_name(name)
    {
        let mut diagnostic = Diagnostic::error(format!("`{name}` is not a project name"))
            .note("project names are made of lower-case letters, digits, `-` and `_`, and start with a letter or digit");
        let normal = normal_name(name);
        if !normal.is_empty() {
            diagnostic = diagnostic.hint(format!("use `{normal}`"));
        }
        return Err(Box::new((LoadErrorKind::Usage, diagnostic)));
    }
    Ok(Located {
        files: chosen,
        env_files: env_files
            .iter()
            .flatten()
            .map(|path| absolute(path))
            .collect(),
        directory,
        variables,
        name,
        profiles,
    })
}

/// Refuses names that are not UTF-8: what is written about a project, in labels, in its state and in environments, could
/// not name its files.
fn check_names<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> Result<(), Failure> {
    for path in paths {
        if let Some((wrong, better)) = shell::renamed(path) {
            let diagnostic = Diagnostic::error(format!(
                "the name of {} is not UTF-8",
                shell::word(wrong)
            ))
            .note("compose files, labels and variables are text, and could not name what is there")
            .hint(format!(
                "mv {} {}",
                shell::word(wrong),
                shell::word(&better)
            ));
            return Err(Box::new((LoadErrorKind::Unreadable, diagnostic)));
        }
    }
    Ok(())
}

/// `--project-directory`, else where the first file is, else the current directory.
fn directory(fixed: Option<&PathBuf>, files: &[PathBuf], env: &Env) -> PathBuf {
    if let Some(fixed) = fixed {
        return fixed.clone();
    }
    files
        .iter()
        .find(|path| path.as_path() != Path::new("-"))
        .and_then(|path| path.parent())
        .map_or_else(|| env.current_dir.clone(), Path::to_path_buf)
}

/// The env files that were asked for; `None`: the usual one.
fn env_files(options: &LoadOptions, env: &Env) -> Option<Vec<PathBuf>> {
    let listed = env.get("COMPOSE_ENV_FILES");
    let asked: Vec<PathBuf> = if options.env_files.is_empty() {
        listed
            .into_iter()
            .flat_map(|list| list.split(','))
            .map(PathBuf::from)
            .collect()
    } else {
        options.env_files.clone()
    };
    if !asked.is_empty() {
        return Some(asked);
    }
    let disabled = matches!(
        env.get("COMPOSE_DISABLE_ENV_FILE"),
        Some("1" | "t" | "T" | "true" | "TRUE" | "True")
    );
    disabled.then(Vec::new)
}

/// Adds the variables of env files that are not set yet.
fn read_env_files(
    asked: Option<&[PathBuf]>,
    directory: &Path,
    variables: &mut BTreeMap<String, String>,
    env: &Env,
    files: &dyn Files,
    report: &mut Report,
) -> Result<(), Failure> {
    let usual = directory.join(".env");
    let paths: Vec<PathBuf> = match asked {
        Some(paths) => paths
            .iter()
            .map(|path| env.current_dir.join(path))
            .collect(),
        None if files.exists(&usual) && !files.is_dir(&usual) => vec![usual],
        None => Vec::new(),
    };
    let read = read_all(&paths, variables, files, report)?;
    for (key, value) in read {
        variables.entry(key).or_insert(value);
    }
    Ok(())
}

/// The variables of env files, later files over earlier ones.
pub(crate) fn read_all(
    paths: &[PathBuf],
    variables: &BTreeMap<String, String>,
    files: &dyn Files,
    report: &mut Report,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut read: BTreeMap<String, String> = BTreeMap::new();
    for path in paths {
        if !files.exists(path) {
            let diagnostic = absent("the env file", path, files);
            return Err(Box::new((LoadErrorKind::Unreadable, diagnostic)));
        }
        let lookup = |key: &str| variables.get(key).or_else(|| read.get(key)).cloned();
        let more = environment::load(path, false, &lookup, files, report)
            .map_err(|diagnostic| Box::new((LoadErrorKind::Invalid, *diagnostic)))?;
        read.extend(more);
    }
    Ok(read)
}

/// A file that is not there: `what` it is to be.
pub(crate) fn absent(what: &str, path: &Path, files: &dyn Files) -> Diagnostic {
    let diagnostic = Diagnostic::error(format!("{what} `{}` does not exist", path.display()));
    match files.link(path) {
        Some(target) => diagnostic.note(format!(
            "it is a symbolic link to `{}`, where nothing is",
            target.display()
        )),
        None => diagnostic,
    }
}

/// The compose file of a directory that is given in place of it.
pub(crate) fn in_directory(directory: &Path, files: &dyn Files) -> Option<PathBuf> {
    let mut known = FILE_NAMES.iter().map(|name| directory.join(name));
    known.find(|path| files.exists(path))
}

/// The first known file name in a directory or one above it, and the file to put on top of it.
fn discover(start: &Path, files: &dyn Files, report: &mut Report) -> Option<Vec<PathBuf>> {
    let mut directory = Some(start);
    while let Some(here) = directory {
        let present = |names: &[&str]| -> Vec<PathBuf> {
            names
                .iter()
                .map(|name| here.join(name))
                .filter(|path| files.exists(path))
                .collect()
        };
        let found = present(&FILE_NAMES);
        if let Some(first) = found.first() {
            let mut chosen = vec![first.clone()];
            warn_of_others(&found, report);
            let overrides = present(&OVERRIDE_NAMES);
            warn_of_others(&overrides, report);
            chosen.extend(overrides.into_iter().next());
            return Some(chosen);
        }
        directory = here.parent();
    }
    None
}

fn warn_of_others(found: &[PathBuf], report: &mut Report) {
    if let [first, others @ ..] = found
        && !others.is_empty()
    {
        let others: Vec<String> = others
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        report.add(
            Diagnostic::warning(format!("several compose files: using {}", first.display()))
                .note(format!("not used: {}", others.join(", "))),
        );
    }
}

/// `to` as seen from the directory `from`, both absolute.
pub(crate) fn relative(from: &Path, to: &Path) -> PathBuf {
    let from: Vec<_> = from.components().collect();
    let to: Vec<_> = to.components().collect();
    let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = std::iter::repeat_n("..", from.len() - common).map(PathBuf::from);
    let down = to
        .iter()
        .skip(common)
        .map(|part| PathBuf::from(part.as_os_str()));
    let path: PathBuf = up.chain(down).collect();
    if path.as_os_str().is_empty() {
        PathBuf::from(".")
    } else {
        path
    }
}

/// A path against a directory, cleaned.
pub(crate) fn join(directory: &Path, path: &str) -> PathBuf {
    if path.starts_with('/') {
        PathBuf::from(path)
    } else {
        PathBuf::from(paths::join(&directory.to_string_lossy(), path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised_as_measured() {
        for (text, name) in [
            ("My_App.1", "my_app1"),
            ("--x", "x"),
            ("ÄB c", "bc"),
            ("_-a", "a"),
        ] {
            assert_eq!(normal_name(text), name);
        }
    }

    #[test]
    fn paths_are_made_relative() {
        let from = Path::new("/a/b");
        for (to, expected) in [("/a/b", "."), ("/a/b/c", "c"), ("/a/x", "../x")] {
            assert_eq!(relative(from, Path::new(to)), PathBuf::from(expected));
        }
    }
}
