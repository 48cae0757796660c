//! What this builder says it can do. Clients ask before they use newer parts of the protocol, and
//! refuse what is not here with words of their own.

use crate::pb::moby::buildkit::v1::apicaps::ApiCap;

/// Parts of the gateway.
const GATEWAY: [&str; 13] = [
    "solve.base",
    "return",
    "returnmap",
    "importcaches",
    "proto.refarray",
    "reference.output",
    "frontend.inputs",
    "frontend.caps",
    "gateway.solve.metadata",
    "gateway.solve.evaluate",
    "gateway.evaluate",
    "gateway.warnings",
    "resolveimage.resolvemode",
];

/// Parts of definitions: what the Dockerfile frontend would need to build with.
const DEFINITIONS: [&str; 56] = [
    "source.image",
    "source.image.resolvemode",
    "source.image.checksum",
    "source.local",
    "source.local.unique",
    "source.local.sessionid",
    "source.local.includepatterns",
    "source.local.followpaths",
    "source.local.excludepatterns",
    "source.local.sharedkeyhint",
    "source.local.differ",
    "source.git",
    "source.git.keepgitdir",
    "source.git.fullurl",
    "source.git.subdir",
    "source.git.checksum",
    "source.http",
    "source.http.checksum",
    "source.http.perm",
    // As BuildKit spells it.
    "soruce.http.uidgid",
    "source.buildop.llbfilename",
    "exec.meta.base",
    "exec.meta.cgroup.parent",
    "exec.meta.network",
    "exec.meta.proxyenv",
    "exec.meta.security",
    "exec.meta.setsdefaultpath",
    "exec.meta.ulimit",
    "exec.meta.linux.resources",
    "exec.meta.removemountstubs.recursive",
    "exec.mount.bind",
    "exec.mount.bind.readwrite-nooutput",
    "exec.mount.cache",
    "exec.mount.cache.sharing",
    "exec.mount.selector",
    "exec.mount.tmpfs",
    "exec.mount.tmpfs.size",
    "exec.mount.secret",
    "exec.mount.ssh",
    "exec.secretenv",
    "file.base",
    "file.rm.wildcard",
    "file.copy.includeexcludepatterns",
    "file.copy.requiredpaths",
    "file.copy.alwaysreplaceexistingdestpaths",
    "file.copy.modestring",
    "constraints",
    "platform",
    "meta.ignorecache",
    "meta.description",
    "meta.exportcache",
    "mergeop",
    "diffop",
    "exporter.sourcedateepoch",
    "exporter.multiple",
    "exporter.image.attestations",
];

/// Capabilities that a client can ask of the Dockerfile frontend; `+forward` after one is for
/// frontends in between.
const FRONTEND: [&str; 4] = [
    "moby.buildkit.frontend.inputs",
    "moby.buildkit.frontend.subrequests",
    "moby.buildkit.frontend.contexts",
    "moby.buildkit.frontend.gitquerystring",
];

fn enabled(names: &[&str]) -> Vec<ApiCap> {
    let cap = |name: &&str| ApiCap { id: (*name).to_owned(), enabled: true, ..ApiCap::default() };
    names.iter().map(cap).collect()
}

/// Those of the gateway.
pub(crate) fn gateway() -> Vec<ApiCap> {
    enabled(&GATEWAY)
}

/// Those of definitions.
pub(crate) fn definitions() -> Vec<ApiCap> {
    enabled(&DEFINITIONS)
}

/// The first of the frontend's capabilities, separated by commas, that it does not have.
pub(crate) fn missing(wanted: &str) -> Option<&str> {
    let mut wanted = wanted.split(',').filter(|name| !name.is_empty());
    wanted.find(|name| !FRONTEND.contains(&name.strip_suffix("+forward").unwrap_or(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frontend_refuses_what_it_cannot() {
        let known = "moby.buildkit.frontend.contexts+forward,moby.buildkit.frontend.subrequests";
        assert_eq!(missing(known), None);
        assert_eq!(missing(""), None);
        assert_eq!(missing("moby.buildkit.frontend.contexts,new"), Some("new"));
    }
}
