//! Verbs on images.

use silo_oci::reference::Reference;
use silo_types::size;

use super::container::{confirmed, for_each, prune_filters, prune_report};
use super::list::{ago, local_time, now};
use crate::command::Invocation;
use crate::context::warn;
use crate::failure::{Failure, Outcome};
use crate::flags::{Filters, flags};
use crate::format::{Format, Kind};
use crate::table::{ellipsis, short_id};
use crate::value::{Row, Value};

flags! {
    /// Flags of `images`.
    ImagesFlags {
        all: bool, ['a'] "all", "Show all images (default hides intermediate images)";
        digests: bool, "digests", "Show digests";
        filter: Filters, ['f'] "filter", "Filter output based on conditions provided";
        format: String, "format", "Format output using a custom template";
        no_trunc: bool, "no-trunc", "Don't truncate output";
        quiet: bool, ['q'] "quiet", "Only show image IDs";
        tree: bool, "tree", "List multi-platform images as a tree";
    }
}

flags! {
    /// Flags of `rmi`.
    RmiFlags {
        force: bool, ['f'] "force", "Force removal of the image";
        no_prune: bool, "no-prune", "Do not delete untagged parents";
        platform: Vec<String>, "platform", "Remove only the given platform variant";
    }
}

flags! {
    /// Flags of `history`.
    HistoryFlags {
        format: String, "format", "Format output using a custom template";
        human: Option<bool>, ['H'] "human", "Print sizes and dates in human readable format (default true)";
        no_trunc: bool, "no-trunc", "Don't truncate output";
        platform: Option<String>, "platform", "Show history for the given platform";
        quiet: bool, ['q'] "quiet", "Only show image IDs";
    }
}

flags! {
    /// Flags of `commit`.
    CommitFlags {
        author: String, ['a'] "author", "Author (e.g., \"John Hannibal Smith <hannibal@a-team.com>\")";
        change: Vec<String>, ['c'] "change", "Apply Dockerfile instruction to the created image";
        message: String, ['m'] "message", "Commit message";
        pause: Option<bool>, ['p'] "pause", "Pause container during commit (default true)";
    }
}

flags! {
    /// Flags of `image prune`.
    PruneFlags {
        all: bool, ['a'] "all", "Remove all unused images, not just dangling ones";
        filter: Filters, "filter", "Provide filter values (e.g. \"until=<timestamp>\")";
        force: bool, ['f'] "force", "Do not prompt for confirmation";
    }
}

/// Rows about images.
pub(super) const KIND: Kind = Kind {
    headings: &[
        ("Containers", "CONTAINERS"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedSince", "CREATED"),
        ("Digest", "DIGEST"),
        ("ID", "IMAGE ID"),
        ("Repository", "REPOSITORY"),
        ("SharedSize", "SHARED SIZE"),
        ("Size", "SIZE"),
        ("Tag", "TAG"),
        ("UniqueSize", "UNIQUE SIZE"),
        ("VirtualSize", "SIZE"),
    ],
    table: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{if .CreatedSince }}{{.CreatedSince}}{{else}}N/A{{end}}\t{{.Size}}",
    quiet: "{{.ID}}",
    raw: "repository: {{ .Repository }}\ntag: {{.Tag}}\nimage_id: {{.ID}}\ncreated_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}\n",
};

const WITH_DIGEST: Kind = Kind {
    table: "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{if .CreatedSince }}{{.CreatedSince}}{{else}}N/A{{end}}\t{{.Size}}",
    ..KIND
};

/// `images`
pub(crate) async fn images(invocation: Invocation) -> Outcome {
    let (flags, words) = invocation.parse::<ImagesFlags>()?;
    let cli = &invocation.cli;
    let mut filters = flags.filter.clone();
    if let Some(name) = words.first() {
        filters.add("reference", name);
    }
    if flags.tree {
        // Docker's words.
        for (is_set, name) in [
            (flags.no_trunc, "no-trunc"),
            (flags.quiet, "quiet"),
            (flags.digests, "show-digest"),
            (!flags.format.is_empty(), "format"),
        ] {
            if is_set {
                return Err(Failure::new(format!("--{name} is not yet supported with --tree")));
            }
        }
        return super::image_tree::show(cli, flags.all, filters.query()).await;
    }
    let kind = if flags.digests { &WITH_DIGEST } else { &KIND };
    let format = if flags.format.is_empty() && !flags.quiet {
        cli.config().text("imagesFormat")
    } else {
        &flags.format
    };
    let format = Format::new(kind, format, flags.quiet)?;
    let client = cli.client().await?;
    let images: Value = client
        .get("/images/json")
        .query_if("all", flags.all)
        .query_some("filters", filters.query())
        .receive()
        .await?;
    let digests = flags.digests || format.uses("Digest");
    let now = now();
    let rows: Vec<Row> = images
        .list()
        .iter()
        .flat_map(|image| rows(image, !flags.no_trunc, digests, flags.digests, now))
        .collect();
    format.print(cli, kind, &rows)
}

/// One row for each name of an image.
fn rows(image: &Value, trunc: bool, digests: bool, digest_rows: bool, now: i64) -> Vec<Row> {
    const NONE: &str = "<none>";
    let one = |repository: &str, tag: &str, digest: &str| {
        image_row(image, repository, tag, digest, trunc, now)
    };
    let parse = |name: &str| {
        image
            .get(name)
            .list()
            .iter()
            .filter_map(|text| Reference::parse(text.str()).ok())
            .collect::<Vec<_>>()
    };
    let (tagged, mut with_digest) = (parse("RepoTags"), parse("RepoDigests"));
    if tagged.is_empty() && with_digest.is_empty() {
        return vec![one(NONE, NONE, NONE)];
    }
    let mut rows = Vec::new();
    for reference in &tagged {
        let Some(tag) = reference.tag() else { continue };
        let name = reference.familiar_name();
        let own: Vec<String> = with_digest
            .iter()
            .filter(|other| other.name() == reference.name())
            .filter_map(|other| other.digest().map(ToString::to_string))
            .collect();
        if !digests || own.is_empty() {
            rows.push(one(&name, tag, NONE));
        } else {
            rows.extend(own.iter().map(|digest| one(&name, tag, digest)));
        }
    }
    with_digest.retain(|other| tagged.iter().all(|known| known.name() != other.name()));
    for reference in with_digest {
        let digest = reference.digest().map(ToString::to_string).unwrap_or_default();
        rows.push(one(&reference.familiar_name(), NONE, if digest_rows { &digest } else { "" }));
    }
    rows
}

/// A row with the given names.
pub(super) fn image_row(
    image: &Value,
    repository: &str,
    tag: &str,
    digest: &str,
    trunc: bool,
    now: i64,
) -> Row {
    let id = image.get("Id").str();
    let created = image.get("Created").int();
    let (all, shared) = (image.get("Size").float(), image.get("SharedSize").int());
    let count = image.get("Containers").int();
    let known =
        |known: bool, text: String| Value::Text(if known { text } else { "N/A".to_owned() });
    let size_text = Value::Text(size::human_with_precision(all, 3));
    Row {
        type_name: "*formatter.imageContext",
        fields: vec![
            ("Containers", known(count >= 0, count.to_string())),
            ("CreatedAt", Value::Text(local_time(created))),
            ("CreatedSince", Value::Text(ago(created, now))),
            ("Digest", Value::text(digest)),
            ("ID", Value::Text(if trunc { short_id(id) } else { id.to_owned() })),
            ("Repository", Value::text(repository)),
            ("SharedSize", known(shared >= 0, size::human(image.get("SharedSize").float()))),
            ("Size", size_text.clone()),
            ("Tag", Value::text(tag)),
            ("UniqueSize", known(shared >= 0, size::human(all - image.get("SharedSize").float()))),
            ("VirtualSize", size_text),
        ],
        labels: image.get("Labels").pairs(),
    }
}

/// `rmi`
pub(crate) async fn rmi(invocation: Invocation) -> Outcome {
    let (flags, names) = invocation.parse::<RmiFlags>()?;
    let flags = &flags;
    let platforms: Vec<String> = flags.platform.iter().map(|name| platform_json(name)).collect();
    let platforms = &platforms;
    for_each(&invocation, &names, |client, name| async move {
        let mut request = client
            .delete(format!("/images/{name}"))
            .query_if("force", flags.force)
            .query_if("noprune", flags.no_prune);
        for platform in platforms {
            request = request.query("platforms", platform);
        }
        let removed: Result<Value, _> = request.receive().await;
        match removed {
            Ok(removed) => Ok(Some(deleted(&removed).join("\n")).filter(|text| !text.is_empty())),
            Err(error) if flags.force && error.status() == Some(404) => {
                warn(&error.to_string());
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    })
    .await
}

/// The lines that say what was removed.
fn deleted(removed: &Value) -> Vec<String> {
    removed
        .list()
        .iter()
        .map(|item| match item.get("Deleted").str() {
            "" => format!("Untagged: {}", item.get("Untagged").str()),
            id => format!("Deleted: {id}"),
        })
        .collect()
}

/// `os/architecture/variant` as the API wants it.
pub(super) fn platform_json(text: &str) -> String {
    let mut parts = text.split('/');
    let mut object = serde_json::Map::new();
    for name in ["os", "architecture", "variant"] {
        if let Some(part) = parts.next() {
            object.insert(name.to_owned(), part.into());
        }
    }
    serde_json::Value::Object(object).to_string()
}

/// `tag`
pub(crate) async fn tag(invocation: Invocation) -> Outcome {
    let (_, words) = invocation.parse::<super::container::NoFlags>()?;
    let target = Reference::parse_normalized(&words[1]).map_err(|error| {
        Failure::new(format!(
            "Error parsing reference: {:?} is not a valid repository/tag: {error}",
            words[1]
        ))
    })?;
    let client = invocation.cli.client().await?;
    client
        .post(format!("/images/{}/tag", words[0]))
        .query("repo", target.name())
        .query("tag", target.tag().unwrap_or_default())
        .done()
        .await?;
    Ok(())
}

const HISTORY: Kind = Kind {
    headings: &[
        ("Comment", "COMMENT"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedBy", "CREATED BY"),
        ("CreatedSince", "CREATED"),
        ("ID", "IMAGE"),
        ("Size", "SIZE"),
    ],
    table: "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
    quiet: "{{.ID}}",
    raw: "",
};

const HISTORY_EXACT: Kind =
    Kind { table: "{{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}", ..HISTORY };

/// `history`
pub(crate) async fn history(invocation: Invocation) -> Outcome {
    let (flags, words) = invocation.parse::<HistoryFlags>()?;
    let human = flags.human != Some(false);
    let kind = if human { &HISTORY } else { &HISTORY_EXACT };
    let format = Format::new(kind, &flags.format, flags.quiet)?;
    let client = invocation.cli.client().await?;
    let entries: Value = client
        .get(format!("/images/{}/history", words[0]))
        .query_some("platform", flags.platform.as_deref().map(platform_json))
        .receive()
        .await?;
    let now = now();
    let rows: Vec<Row> = entries
        .list()
        .iter()
        .map(|entry| {
            let created = entry.get("Created").int();
            let by = entry.get("CreatedBy").str().replace('\t', " ");
            let id = entry.get("Id").str();
            let bytes = entry.get("Size").float();
            let since = if created <= 0 { String::new() } else { ago(created, now) };
            let at = jiff::Timestamp::from_second(created)
                .map(|time| {
                    let zoned = time.to_zoned(jiff::tz::TimeZone::system());
                    zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string().replace("+00:00", "Z")
                })
                .unwrap_or_default();
            Row {
                type_name: "*image.historyContext",
                fields: vec![
                    ("Comment", Value::text(entry.get("Comment").str())),
                    ("CreatedAt", Value::Text(at)),
                    ("CreatedBy", Value::Text(if flags.no_trunc { by } else { ellipsis(&by, 45) })),
                    ("CreatedSince", Value::Text(since)),
                    ("ID", Value::Text(if flags.no_trunc { id.to_owned() } else { short_id(id) })),
                    (
                        "Size",
                        Value::Text(if human {
                            size::human_with_precision(bytes, 3)
                        } else {
                            entry.get("Size").int().to_string()
                        }),
                    ),
                ],
                labels: Vec::new(),
            }
        })
        .collect();
    format.print(&invocation.cli, kind, &rows)
}

/// `commit`
pub(crate) async fn commit(invocation: Invocation) -> Outcome {
    let (flags, words) = invocation.parse::<CommitFlags>()?;
    let client = invocation.cli.client().await?;
    let mut request = client
        .post("/commit")
        .query("container", &words[0])
        .query("comment", &flags.message)
        .query("author", &flags.author);
    if let Some(name) = words.get(1) {
        let target = Reference::parse_normalized(name).map_err(|error| {
            Failure::new(format!(
                "Error parsing reference: {name:?} is not a valid repository/tag: {error}"
            ))
        })?;
        if target.digest().is_some() {
            return Err(Failure::new("refusing to create a tag with a digest reference"));
        }
        request =
            request.query("repo", target.name()).query("tag", target.tag().unwrap_or_default());
    }
    for change in &flags.change {
        request = request.query("changes", change);
    }
    if flags.pause == Some(false) {
        request = request.query("pause", "0");
    }
    let image: Value = request.receive().await?;
    invocation.cli.line(image.get("Id").str())
}

/// What a prune of images removed, line by line, and the space.
pub(super) fn prune_result(pruned: &Value) -> (Vec<String>, f64) {
    let names = pruned
        .get("ImagesDeleted")
        .list()
        .iter()
        .map(|item| match item.get("Untagged").str() {
            "" => format!("deleted: {}", item.get("Deleted").str()),
            name => format!("untagged: {name}"),
        })
        .collect();
    (names, pruned.get("SpaceReclaimed").float())
}

/// `image prune`
pub(crate) async fn prune(invocation: Invocation) -> Outcome {
    let (flags, _) = invocation.parse::<PruneFlags>()?;
    let question = if flags.all {
        "WARNING! This will remove all images without at least one container associated to them."
    } else {
        "WARNING! This will remove all dangling images."
    };
    if !flags.force && !confirmed(question)? {
        return Err(Failure::new("image prune has been cancelled"));
    }
    let mut filters = prune_filters(&invocation, &flags.filter);
    filters.add("dangling", if flags.all { "false" } else { "true" });
    let client = invocation.cli.client().await?;
    let pruned: Value =
        client.post("/images/prune").query_some("filters", filters.query()).receive().await?;
    let (names, space) = prune_result(&pruned);
    invocation.cli.print(&prune_report("Deleted Images:", &names, space))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_names() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let json = format!(
            r#"{{"Id":"sha256:{hex}","RepoTags":["b:2","b:1","a/c:x"],
            "RepoDigests":["b@sha256:{hex}","only@sha256:{hex}"],"Created":0,"Size":4491537,
            "SharedSize":-1,"Containers":-1}}"#
        );
        let image = Value::parse(json.as_bytes()).unwrap();
        let rows = rows(&image, true, false, false, 86_400 * 3);
        let text = Format::new(&KIND, "", false).unwrap().render(&KIND, &rows).unwrap();
        assert_eq!(
            text,
            "REPOSITORY   TAG       IMAGE ID       CREATED      SIZE\n\
             b            2         e3b0c44298fc   3 days ago   4.49MB\n\
             b            1         e3b0c44298fc   3 days ago   4.49MB\n\
             a/c          x         e3b0c44298fc   3 days ago   4.49MB\n\
             only         <none>    e3b0c44298fc   3 days ago   4.49MB\n"
        );
    }

    #[test]
    fn platforms() {
        assert_eq!(
            platform_json("linux/arm64/v8"),
            r#"{"architecture":"arm64","os":"linux","variant":"v8"}"#
        );
    }
}
