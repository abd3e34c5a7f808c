//! The options before a command's name, as Docker Compose has them, and what they make of the screen and of loading.

use std::borrow::Cow;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, ValueEnum};

use crate::error::{Error, Result};
use crate::project::{self, Disk, Env, LoadOptions, shell};
use crate::ui::{Steps, Ui};

/// Options before the command's name, as Compose has them.
#[derive(Clone, Debug, Args)]
pub(super) struct Global {
    /// Compose file; may be given several times, later ones override earlier ones; `-` reads standard
    /// input
    #[arg(short, long = "file", value_name = "FILE")]
    pub(super) file: Vec<PathBuf>,
    /// Project name
    #[arg(short, long, value_name = "NAME")]
    pub(super) project_name: Option<String>,
    /// Directory that relative paths start from [default: that of the first compose file]
    #[arg(long, value_name = "DIR", value_parser = path_or_nothing())]
    pub(super) project_directory: Option<PathBuf>,
    /// Enable a profile; may be given several times; `*` enables all
    #[arg(long, value_name = "NAME")]
    pub(super) profile: Vec<String>,
    /// File with variables; may be given several times [default: .env]
    #[arg(long, value_name = "FILE")]
    pub(super) env_file: Vec<PathBuf>,
    /// When to use colours [default: `COMPOSE_ANSI`, else auto]
    #[arg(long, value_enum, value_name = "WHEN")]
    pub(super) ansi: Option<Ansi>,
    /// How to tell what happens [default: `COMPOSE_PROGRESS`, else auto]
    #[arg(long, value_enum, value_name = "HOW")]
    pub(super) progress: Option<ProgressMode>,
    /// How many steps may be at work at the same time; -1: any number [default: `COMPOSE_PARALLEL_LIMIT`]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(super) parallel: Option<i64>,
    /// Make names as Compose 1 did, with `_`
    #[arg(long)]
    pub(super) compatibility: bool,
    /// Keep networks, volumes, secrets and configs that no service uses
    #[arg(long)]
    pub(super) all_resources: bool,
    /// Print the plan with its causes and do nothing
    #[arg(long, global = true)]
    pub(super) dry_run: bool,
    #[arg(long, hide = true)]
    verbose: bool,
    #[arg(long, hide = true)]
    no_ansi: bool,
    #[arg(
        long,
        hide = true,
        value_name = "DIR",
        conflicts_with = "project_directory"
    )]
    workdir: Option<PathBuf>,
    /// For compose files in registries, which wharf does not fetch
    #[arg(long, hide = true, value_name = "REGISTRY")]
    insecure_registry: Vec<String>,
}

/// `--progress`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ProgressMode {
    /// A line a step
    #[value(alias = "")]
    Auto,
    /// The same: lines are only ever appended
    Tty,
    /// A line a step, without colours
    Plain,
    /// An object a line
    Json,
    /// Nothing but errors
    #[value(alias = "none")]
    Quiet,
}

/// `--ansi`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Ansi {
    /// Where the stream is a terminal
    #[value(alias = "")]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl Ansi {
    pub(super) fn apply(self) {
        let choice = match self {
            // Leaves `NO_COLOR` and `CLICOLOR_FORCE` to anstream.
            Self::Auto => anstream::ColorChoice::Auto,
            Self::Always => anstream::ColorChoice::Always,
            Self::Never => anstream::ColorChoice::Never,
        };
        choice.write_global();
    }
}

/// A path, which may be empty.
fn path_or_nothing() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

impl Global {
    /// Puts the settings of env files and the words of the past in their places, and says what the screen is
    /// to be like.
    ///
    /// # Errors
    /// A setting of the environment that is none, or two options that exclude each other.
    pub(super) fn settle(&mut self, env: &mut Env) -> Result<Ui> {
        if self.no_ansi {
            if self.ansi.is_some() {
                return Err(
                    Error::usage("--no-ansi and --ansi exclude each other").hint("--ansi never")
                );
            }
            self.ansi = Some(Ansi::Never);
            Ui::default().warn("--no-ansi is deprecated: use --ansi never");
        }
        if let Some(directory) = self.workdir.take() {
            self.project_directory = Some(directory);
            Ui::default().warn("--workdir is deprecated: use --project-directory");
        }
        // As in Docker Compose, that of `--project-directory "$UNSET"` is the usual one.
        let is_set = |path: &PathBuf| !path.as_os_str().is_empty();
        self.project_directory = self.project_directory.take().filter(is_set);
        let settings = project::settings(&self.load_options(&[], false), env, &Disk);
        env.variables.extend(settings);
        let ansi = self.ansi.unwrap_or_else(|| match env.get("COMPOSE_ANSI") {
            None | Some("auto") => Ansi::Auto,
            Some("always") => Ansi::Always,
            Some(_) => Ansi::Never,
        });
        let progress = match (self.progress, env.get("COMPOSE_PROGRESS")) {
            (Some(progress), _) => progress,
            (None, None) => ProgressMode::Auto,
            (None, Some(word)) => ProgressMode::from_str(word, false).map_err(|_| {
                Error::usage(format!(
                    "COMPOSE_PROGRESS: `{word}` is not a way to tell progress"
                ))
                .hint("COMPOSE_PROGRESS=plain")
            })?,
        };
        if self.parallel.is_none()
            && let Some(text) = env.get("COMPOSE_PARALLEL_LIMIT")
        {
            let limit = text.parse().map_err(|_| {
                Error::usage(format!(
                    "COMPOSE_PARALLEL_LIMIT must be an integer (found: \"{text}\")"
                ))
                .hint("COMPOSE_PARALLEL_LIMIT=4")
            })?;
            self.parallel = Some(limit);
        }
        match (progress, ansi) {
            (ProgressMode::Tty, Ansi::Never) => {
                return Err(Error::usage(
                    "--progress tty needs colours, which --ansi never forbids",
                )
                .hint("--progress plain"));
            }
            (ProgressMode::Plain, Ansi::Always) => {
                return Err(Error::usage(
                    "--progress plain has no colours, which --ansi always asks for",
                )
                .hint("--progress auto"));
            }
            (ProgressMode::Plain, _) => Ansi::Never.apply(),
            (_, ansi) => ansi.apply(),
        }
        Ok(Ui {
            quiet: progress == ProgressMode::Quiet,
            steps: if progress == ProgressMode::Json {
                Steps::Json
            } else {
                Steps::Lines
            },
            status_to_stdout: env.get("COMPOSE_STATUS_STDOUT").is_some_and(project::is_on),
            unattended: false,
        })
    }

    /// The options for loading, for these services (empty: all enabled ones).
    pub(super) fn load_options(&self, services: &[String], no_deps: bool) -> LoadOptions {
        LoadOptions {
            files: self.file.clone(),
            name: self.project_name.clone(),
            directory: self.project_directory.clone(),
            env_files: self.env_file.clone(),
            profiles: self.profile.clone(),
            services: services.to_vec(),
            no_deps,
            compatibility: self.compatibility,
            all_resources: self.all_resources,
        }
    }

    /// What says which project is meant, for a shell.
    pub(super) fn project_words(&self) -> Vec<String> {
        let words = |paths: &[PathBuf]| -> Vec<String> {
            let words = paths.iter().map(|path| shell::word(path));
            words.map(Cow::into_owned).collect()
        };
        let quoted = |words: &[String]| -> Vec<String> {
            let words = words.iter().map(|word| shell_words::quote(word));
            words.map(Cow::into_owned).collect()
        };
        let directory = self.project_directory.as_slice();
        let name = self.project_name.as_slice();
        [
            ("-f", words(&self.file)),
            ("-p", quoted(name)),
            ("--project-directory", words(directory)),
            ("--env-file", words(&self.env_file)),
            ("--profile", quoted(&self.profile)),
        ]
        .into_iter()
        .flat_map(|(option, values)| values.into_iter().map(move |value| (option, value)))
        .flat_map(|(option, value)| [option.to_owned(), value])
        .collect()
    }

    /// How many steps may be at work at the same time; `None`: any number.
    pub(super) fn limit(&self) -> Option<NonZeroUsize> {
        self.parallel
            .and_then(|limit| usize::try_from(limit).ok())
            .and_then(NonZeroUsize::new)
    }
}
