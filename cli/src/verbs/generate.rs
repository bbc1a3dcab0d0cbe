//! The manual pages and completions of shells, from the command line itself, and the schema of reports. For packagers; hidden
//! from the help.

use super::Cli;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::files::Writer;
use clap::CommandFactory;
use clap_complete::Shell;
use std::path::PathBuf;

/// Write manual pages, shell completions and the schema of reports into a folder
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder
    pub folder: PathBuf,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<Exit> {
    let writer = Writer::new(true);
    for (name, contents) in files()? {
        writer.write(&args.folder.join(name), &contents)?;
    }
    Ok(Exit::Ok)
}

/// File names and contents.
pub fn files() -> Result<Vec<(String, Vec<u8>)>> {
    let command = Cli::command();
    let page = |name: String, c: clap::Command| -> Result<(String, Vec<u8>)> {
        let mut out = Vec::new();
        let man = clap_mangen::Man::new(c).title(name.clone());
        man.render(&mut out).map_err(|e| Failure::new("file-io", e.to_string()))?;
        Ok((format!("man/{name}.1"), out))
    };
    let mut out = vec![page("planish".into(), command.clone())?];
    for sub in command.get_subcommands().filter(|s| !s.is_hide_set()) {
        out.push(page(format!("planish-{}", sub.get_name()), sub.clone())?);
    }
    for (shell, name) in
        [(Shell::Bash, "planish.bash"), (Shell::Zsh, "_planish"), (Shell::Fish, "planish.fish")]
    {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "planish", &mut text);
        out.push((format!("completions/{name}"), text));
    }
    let schema = format!("{:#}\n", crate::report::json_schema());
    out.push(("report.schema.json".into(), schema.into_bytes()));
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_a_page() {
        let files = files().unwrap_or_else(|f| panic!("{}", f.message()));
        let names: Vec<&str> = files.iter().map(|(n, _)| n.as_str()).collect();
        assert!(
            names.contains(&"man/planish-compile.1") && names.contains(&"completions/_planish"),
            "{names:?}"
        );
        assert!(!names.iter().any(|n| n.contains("__generate")));
        assert!(files.iter().all(|(_, c)| c.len() > 300));
    }
}
