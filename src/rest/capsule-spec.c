/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "basic/limits.h"
#include "basic/strings.h"
#include "rest/capsule-spec.h"
#include "shared/json-field.h"

#define LIMIT_OF(id) .limit = &limit_table[LIMIT_##id]

static const JsonField capsule_fields[] = {
        { "template", json_parse_string, offsetof(CapsuleSpec, template), LIMIT_OF(TEMPLATE),
          .valid = name_is_valid, .expected = "a name like [a-zA-Z0-9][a-zA-Z0-9._-]{0,63}" },
        { "vcpus", json_parse_u32, offsetof(CapsuleSpec, vcpus), LIMIT_OF(VCPUS) },
        { "memory_mb", json_parse_u64, offsetof(CapsuleSpec, memory_bytes), LIMIT_OF(MEMORY) },
        { "disk_size_mb", json_parse_u64, offsetof(CapsuleSpec, disk_bytes), LIMIT_OF(DISK) },
        { "timeout_sec", json_parse_u64, offsetof(CapsuleSpec, timeout_usec), LIMIT_OF(TIMEOUT) },
        { "metadata", json_parse_map, offsetof(CapsuleSpec, metadata), LIMIT_OF(LABELS) },
        {}
};

/* Told by us in every answer. */
static const char *const reserved_labels[] = { "kernel_version", "vmm_version", "agent_version",
                                               "envd_version", "firecracker_version" };

static const JsonField exec_fields[] = {
        { "cmd", json_parse_string, offsetof(ExecSpec, cmd), LIMIT_OF(EXEC_CMD) },
        { "args", json_parse_strv, offsetof(ExecSpec, args), LIMIT_OF(EXEC_ARGS) },
        { "envs", json_parse_map, offsetof(ExecSpec, envs), LIMIT_OF(EXEC_ENV) },
        { "cwd", json_parse_string, offsetof(ExecSpec, cwd), LIMIT_OF(EXEC_CWD) },
        { "user", json_parse_string, offsetof(ExecSpec, user), LIMIT_OF(EXEC_USER) },
        { "tag", json_parse_string, offsetof(ExecSpec, tag), LIMIT_OF(EXEC_TAG) },
        { "timeout_sec", json_parse_u64, offsetof(ExecSpec, timeout_usec), LIMIT_OF(EXEC_TIMEOUT) },
        { "background", json_parse_bool, offsetof(ExecSpec, background) },
        {}
};

void capsule_spec_done(CapsuleSpec *s) {
        free(s->template);
        strv_free(s->metadata);
        *s = (CapsuleSpec) {};
}

int capsule_spec_from_json(json_t *body, CapsuleSpec *ret, Fault *reterr) {
        int r;

        r = json_dispatch(body, capsule_fields, ret, reterr);
        if (r < 0)
                return r;

        STRV_FOREACH(label, ret->metadata)
                for (size_t i = 0; i < ELEMENTSOF(reserved_labels); i++) {
                        size_t n = strlen(reserved_labels[i]);

                        if (strncmp(*label, reserved_labels[i], n) == 0 && (*label)[n] == '=')
                                return fault_set(reterr, FAULT_INVALID_ARGS, "metadata: '%s' is reserved.",
                                                 reserved_labels[i]);
                }
        return 0;
}

static int append_label(sd_bus_message *m, const char *label) {
        const char *equals = strchr(label, '=');
        _cleanup_free_ char *name = strndup(label, (size_t) (equals - label));

        return name ? sd_bus_message_append(m, "{ss}", name, equals + 1) : -ENOMEM;
}

int capsule_spec_append_labels(const CapsuleSpec *s, sd_bus_message *m) {
        int r;

        r = sd_bus_message_open_container(m, 'e', "sv");
        if (r >= 0)
                r = sd_bus_message_append(m, "s", "Labels");
        if (r >= 0)
                r = sd_bus_message_open_container(m, 'v', "a{ss}");
        if (r >= 0)
                r = sd_bus_message_open_container(m, 'a', "{ss}");
        if (r < 0)
                return r;

        STRV_FOREACH(label, s->metadata) {
                r = append_label(m, *label);
                if (r < 0)
                        return r;
        }

        for (unsigned i = 0; i < 3 && r >= 0; i++)
                r = sd_bus_message_close_container(m);
        return r;
}

void exec_spec_done(ExecSpec *s) {
        free(s->cmd);
        strv_free(s->args);
        strv_free(s->envs);
        free(s->cwd);
        free(s->user);
        free(s->tag);
        *s = (ExecSpec) {};
}

/* Program and arguments together are what execve(2) bounds. */
static size_t argv_bytes(const ExecSpec *s) {
        size_t n = strlen(s->cmd) + 1;

        STRV_FOREACH(a, s->args)
                n += strlen(*a) + 1;
        return n;
}

int exec_spec_from_json(json_t *body, ExecSpec *ret, Fault *reterr) {
        int r;

        r = json_dispatch(body, exec_fields, ret, reterr);
        if (r < 0)
                return r;

        if (isempty(ret->cmd))
                return fault_set(reterr, FAULT_INVALID_ARGS, "cmd is required");
        if (argv_bytes(ret) > ARGV_ENV_BYTES_MAX)
                return fault_set(reterr, FAULT_INVALID_ARGS,
                                 "cmd, args: expected at most %llu bytes in all.",
                                 (unsigned long long) ARGV_ENV_BYTES_MAX);
        return 0;
}

char* exec_spec_to_agent(const ExecSpec *s) {
        _cleanup_json_ json_t *o = NULL, *args = NULL, *env = NULL, *pty = NULL;

        args = json_from_strv(s->args);
        env = json_from_env(s->envs);
        if (!args || !env)
                return NULL;
        if (s->terminal) {
                pty = json_pack("{s:I,s:I}", "cols", (json_int_t) s->cols, "rows", (json_int_t) s->rows);
                if (!pty)
                        return NULL;
        }

        o = json_pack("{s:s, s:O, s:O, s:s*, s:s*, s:s*, s:I, s:b, s:s, s:b, s:b, s:O*}", "cmd", s->cmd,
                      "args", args, "env", env, "cwd", isempty(s->cwd) ? NULL : s->cwd, "user",
                      isempty(s->user) ? NULL : s->user, "tag",
                      s->background && !isempty(s->tag) ? s->tag : NULL, "timeout_usec",
                      (json_int_t) s->timeout_usec, "stdin", 0, "on_disconnect",
                      s->background ? "keep" : "kill", "shell_fallback", 1, "batch", !s->background, "pty",
                      pty);
        return o ? json_dumps(o, JSON_COMPACT) : NULL;
}
