//! `chiptide policy …`: read it, try a change, make it, go back.

use crate::args::{Policy, PolicyChange};
use crate::failure::Failure;
use crate::list::follow;
use crate::output::{Out, line};
use crate::show;
use anyhow::Context;
use chiptide_api::Client;
use chiptide_api::policy::{ChangeView, PolicyView, changes};
use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use std::process::Command;

/// Reads and changes the policy.
pub(crate) async fn run(command: Policy, client: &Client, out: Out) -> Result<(), Failure> {
    match command {
        Policy::Get { version, document } => {
            let policy = match version {
                Some(version) => client.policy_version(version).await?,
                None => client.policy().await?,
            };
            if document { line(&yaml(&policy)?) } else { out.print(&policy, show::policy) }
        }
        Policy::Diff { file } => {
            let found = diff(&client.policy().await?, &text_of(&file)?)?;
            out.print(found.as_slice(), show::changes)
        }
        Policy::DryRun { file } => {
            let told = client.dry_run_policy(&text_of(&file)?).await?;
            out.print(&told, show::dry_run)
        }
        Policy::Apply { file, change } => {
            let text = text_of(&file)?;
            let seen = client.policy().await?.version;
            try_and_apply(&text, seen, &change, client, out).await
        }
        Policy::Edit { change } => edit(&change, client, out).await,
        Policy::History { pages } => {
            let page = async |query: crate::list::Filters| client.policy_versions(&query).await;
            let versions = follow(Vec::new(), pages.max(), page).await?;
            out.print(versions.as_slice(), show::policy_versions)
        }
        Policy::Rollback { version, reason } => {
            let applied = client.roll_back_policy(version, &reason.unwrap_or_default()).await?;
            out.print(&applied, show::policy_applied)
        }
    }
}

/// Shows what a document would do, asks, and does exactly that: if the cluster would decide otherwise by then, the daemon
/// refuses.
async fn try_and_apply(text: &str, seen: u64, change: &PolicyChange, client: &Client, out: Out) -> Result<(), Failure> {
    let reason = change.reason.clone().unwrap_or_default();
    if change.yes {
        let applied = client.put_policy(text, seen, &reason, None).await?;
        return out.print(&applied, show::policy_applied);
    }
    let told = client.dry_run_policy(text).await?;
    eprintln!("{}", show::dry_run(&told));
    if told.changes.is_empty() {
        eprintln!("nothing to change");
        return Ok(());
    }
    if !agreed()? {
        return Err(Failure::Unmet("nothing was changed".into()));
    }
    let applied = client.put_policy(text, seen, &reason, Some(&told.plan)).await?;
    out.print(&applied, show::policy_applied)
}

/// Opens the policy in the editor; what is wrong with it is told, and the editor opens again on the same text.
async fn edit(change: &PolicyChange, client: &Client, out: Out) -> Result<(), Failure> {
    let policy = client.policy().await?;
    let before = yaml(&policy)?;
    let folder = std::env::temp_dir().join(format!("chiptide-policy-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir(&folder).context("make a folder for the editor")?;
    let file = folder.join("policy.yaml");
    std::fs::write(&file, &before).context("write the policy for the editor")?;
    let edited = loop {
        open_editor(&file)?;
        let text = std::fs::read_to_string(&file).context("read what was edited")?;
        if text == before {
            break None;
        }
        match client.dry_run_policy(&text).await {
            Ok(_) => break Some(text),
            Err(error) => {
                eprintln!("error: {}", Failure::from(error));
                if !asked("edit again?")? {
                    return Err(Failure::Unmet(format!("nothing was changed; your text is in {}", file.display())));
                }
            }
        }
    };
    let outcome = match &edited {
        None => {
            eprintln!("nothing to change");
            Ok(())
        }
        Some(text) => try_and_apply(text, policy.version, change, client, out).await,
    };
    match &outcome {
        Ok(()) => drop(std::fs::remove_dir_all(&folder)),
        Err(_) => eprintln!("your text is in {}", file.display()),
    }
    outcome
}

fn open_editor(file: &Path) -> Result<(), Failure> {
    let named = |name: &str| std::env::var(name).ok().filter(|editor| !editor.trim().is_empty());
    let editor = named("VISUAL").or_else(|| named("EDITOR")).unwrap_or_else(|| "vi".into());
    let mut words = editor.split_whitespace();
    let program = words.next().unwrap_or("vi");
    let ended = Command::new(program).args(words).arg(file).status();
    let ended = ended.with_context(|| format!("run the editor {editor:?} (set EDITOR)"))?;
    if ended.success() { Ok(()) } else { Err(Failure::Unmet(format!("the editor ended with {ended}"))) }
}

fn agreed() -> Result<bool, Failure> {
    asked("put it in force?")
}

/// Asks a person; without one to ask, says how to go on.
fn asked(question: &str) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage("there is nobody to ask: pass --yes to change the policy without".into()));
    }
    eprint!("{question} [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn text_of(file: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = match file.to_str() {
        Some("-") => std::io::stdin().read_to_string(&mut text),
        _ => std::fs::File::open(file).and_then(|mut file| file.read_to_string(&mut text)),
    };
    read.map_err(|error| Failure::Usage(format!("cannot read {}: {error}", file.display())))?;
    Ok(text)
}

fn yaml(policy: &PolicyView) -> Result<String, Failure> {
    let text = serde_saphyr::to_string(&policy.policy).context("write YAML")?;
    Ok(text.trim_end().to_owned() + "\n")
}

/// What a document changes of the policy in force, as far as that can be told here.
fn diff(in_force: &PolicyView, text: &str) -> Result<Vec<ChangeView>, Failure> {
    let document: chiptide_model::Policy =
        serde_saphyr::from_str(text).map_err(|error| Failure::Usage(format!("the document: {error}")))?;
    let now: chiptide_model::Policy =
        serde_json::from_value(in_force.policy.clone()).context("read the policy in force")?;
    Ok(changes(&now, &document))
}
