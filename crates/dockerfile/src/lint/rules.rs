//! The rules, named as BuildKit names them.

use super::Rule;

const fn rule(name: &'static str, description: &'static str, url: &'static str) -> Rule {
    Rule { name, description, url, experimental: false }
}

macro_rules! url {
    ($page:literal) => {
        concat!("https://docs.docker.com/go/dockerfile/rule/", $page, "/")
    };
}

/// `FROM a AS Name`
pub static STAGE_NAME_CASING: Rule =
    rule("StageNameCasing", "Stage names should be lowercase", url!("stage-name-casing"));
/// `FROM a as b`
pub static FROM_AS_CASING: Rule = rule(
    "FromAsCasing",
    "The 'as' keyword should match the case of the 'from' keyword",
    url!("from-as-casing"),
);
/// An empty line inside of a continued one.
pub static NO_EMPTY_CONTINUATION: Rule = rule(
    "NoEmptyContinuation",
    "Empty continuation lines will become errors in a future release",
    url!("no-empty-continuation"),
);
/// `RUN` here, `copy` there.
pub static CONSISTENT_INSTRUCTION_CASING: Rule = rule(
    "ConsistentInstructionCasing",
    "All commands within the Dockerfile should use the same casing (either upper or lower)",
    url!("consistent-instruction-casing"),
);
/// Two stages of one name.
pub static DUPLICATE_STAGE_NAME: Rule =
    rule("DuplicateStageName", "Stage names should be unique", url!("duplicate-stage-name"));
/// `FROM a AS scratch`
pub static RESERVED_STAGE_NAME: Rule = rule(
    "ReservedStageName",
    "Reserved words should not be used as stage names",
    url!("reserved-stage-name"),
);
/// `CMD program`
pub static JSON_ARGS_RECOMMENDED: Rule = rule(
    "JSONArgsRecommended",
    "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
    url!("json-args-recommended"),
);
/// `MAINTAINER`
pub static MAINTAINER_DEPRECATED: Rule = rule(
    "MaintainerDeprecated",
    "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
    url!("maintainer-deprecated"),
);
/// `FROM $undeclared`
pub static UNDEFINED_ARG_IN_FROM: Rule = rule(
    "UndefinedArgInFrom",
    "FROM command must use declared ARGs",
    url!("undefined-arg-in-from"),
);
/// `WORKDIR a` with nothing before it.
pub static WORKDIR_RELATIVE_PATH: Rule = rule(
    "WorkdirRelativePath",
    "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes",
    url!("workdir-relative-path"),
);
/// `$undeclared`
pub static UNDEFINED_VAR: Rule =
    rule("UndefinedVar", "Variables should be defined before their use", url!("undefined-var"));
/// Two `CMD`s.
pub static MULTIPLE_INSTRUCTIONS_DISALLOWED: Rule = rule(
    "MultipleInstructionsDisallowed",
    "Multiple instructions of the same type should not be used in the same stage",
    url!("multiple-instructions-disallowed"),
);
/// `ENV a b`
pub static LEGACY_KEY_VALUE_FORMAT: Rule = rule(
    "LegacyKeyValueFormat",
    "Legacy key/value format with whitespace separator should not be used",
    url!("legacy-key-value-format"),
);
/// The base image is of another platform.
pub static INVALID_BASE_IMAGE_PLATFORM: Rule = rule(
    "InvalidBaseImagePlatform",
    "Base image platform does not match expected target platform",
    "",
);
/// `FROM --platform=$TARGETPLATFORM a`
pub static REDUNDANT_TARGET_PLATFORM: Rule = rule(
    "RedundantTargetPlatform",
    "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
    url!("redundant-target-platform"),
);
/// `ENV API_KEY=x`
pub static SECRETS_USED_IN_ARG_OR_ENV: Rule = rule(
    "SecretsUsedInArgOrEnv",
    "Sensitive data should not be used in the ARG or ENV commands",
    url!("secrets-used-in-arg-or-env"),
);
/// `ARG TAG` and `FROM a:$TAG`
pub static INVALID_DEFAULT_ARG_IN_FROM: Rule = rule(
    "InvalidDefaultArgInFrom",
    "Default value for global ARG results in an empty or invalid base image name",
    url!("invalid-default-arg-in-from"),
);
/// `FROM --platform=linux/amd64 a`
pub static FROM_PLATFORM_FLAG_CONST_DISALLOWED: Rule = rule(
    "FromPlatformFlagConstDisallowed",
    "FROM --platform flag should not use a constant value",
    url!("from-platform-flag-const-disallowed"),
);
/// `COPY` of what `.dockerignore` leaves out.
pub static COPY_IGNORED_FILE: Rule = rule(
    "CopyIgnoredFile",
    "Attempting to Copy file that is excluded by .dockerignore",
    url!("copy-ignored-file"),
);
/// A comment above `ARG` or `FROM` that is no description of it.
pub static INVALID_DEFINITION_DESCRIPTION: Rule = Rule {
    name: "InvalidDefinitionDescription",
    description: "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.",
    url: url!("invalid-definition-description"),
    experimental: true,
};
/// `EXPOSE 80/TCP`
pub static EXPOSE_PROTO_CASING: Rule = rule(
    "ExposeProtoCasing",
    "Protocol in EXPOSE instruction should be lowercase",
    url!("expose-proto-casing"),
);
/// `EXPOSE 80:80`
pub static EXPOSE_INVALID_FORMAT: Rule = rule(
    "ExposeInvalidFormat",
    "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release",
    url!("expose-invalid-format"),
);
