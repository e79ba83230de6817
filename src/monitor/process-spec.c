/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "basic/strings.h"
#include "monitor/process.h"

void guest_process_spec_done(GuestProcessSpec *s) {
        s->argv = strv_free(s->argv);
        s->env = strv_free(s->env);
        free(s->cwd);
        free(s->user);
        free(s->tag);
        *s = (GuestProcessSpec) {};
}

static int parse_pty(const JsonField *f, json_t *value, void *field, Fault *reterr) {
        static const JsonField fields[] = {
                { "cols", json_parse_u32, offsetof(GuestProcessSpec, cols), JSON_FIELD_MANDATORY, .min = 1,
                  .max = PTY_COLS_MAX },
                { "rows", json_parse_u32, offsetof(GuestProcessSpec, rows), JSON_FIELD_MANDATORY, .min = 1,
                  .max = PTY_ROWS_MAX },
                {},
        };

        if (!json_is_object(value))
                return fault_set(reterr, FAULT_INVALID_ARGS, "pty: expected an object.");
        return json_dispatch(value, fields, field, reterr);
}

int guest_process_spec_parse(json_t *message, GuestProcessSpec *ret, Fault *reterr) {
        static const JsonField fields[] = {
                { "argv", json_parse_strv, offsetof(GuestProcessSpec, argv), JSON_FIELD_MANDATORY,
                  .max = ARGV_MAX, .total_max = ARGV_ENV_BYTES_MAX },
                { "env", json_parse_map, offsetof(GuestProcessSpec, env), .max = ENV_MAX,
                  .item_max = ENV_ENTRY_LEN_MAX, .total_max = ARGV_ENV_BYTES_MAX },
                { "cwd", json_parse_string, offsetof(GuestProcessSpec, cwd), .max = CWD_LEN_MAX },
                { "user", json_parse_string, offsetof(GuestProcessSpec, user), .max = NAME_MAX_LEN },
                { "tag", json_parse_string, offsetof(GuestProcessSpec, tag), .max = TAG_MAX_LEN },
                { "timeout_usec", json_parse_u64, offsetof(GuestProcessSpec, timeout_usec),
                  .max = EXEC_TIMEOUT_USEC_MAX },
                { "stdin", json_parse_bool, offsetof(GuestProcessSpec, with_stdin) },
                { "pty", parse_pty, 0 },
                {},
        };
        GuestProcessSpec s = {};
        int r;

        r = json_dispatch(message, fields, &s, reterr);
        if (r >= 0 && strv_length(s.argv) == 0 && s.cols == 0)
                r = fault_set(reterr, FAULT_INVALID_ARGS, "argv: must not be empty.");
        if (r < 0) {
                guest_process_spec_done(&s);
                return r;
        }
        *ret = s;
        return 0;
}

/* Who left its terminal comes back to it; the others' processes have nobody then. */
char* guest_process_spec_to_json(const GuestProcessSpec *s) {
        bool shell = strv_length(s->argv) == 0, pty = s->cols > 0;
        _cleanup_json_ json_t *args = json_from_strv(shell ? NULL : s->argv + 1),
                              *env = json_from_env(s->env), *spec = NULL;

        if (!args || !env)
                return NULL;
        spec = json_pack("{s:s*, s:O, s:O, s:s, s:s, s:s, s:I, s:b, s:s, s:b}", "cmd",
                         shell ? NULL : s->argv[0], "args", args, "env", env, "cwd", strempty(s->cwd),
                         "user", strempty(s->user), "tag", strempty(s->tag), "timeout_usec",
                         (json_int_t) s->timeout_usec, "stdin", s->with_stdin, "on_disconnect",
                         pty ? "keep" : "kill", "shell_fallback", 1);
        if (!spec)
                return NULL;
        if (pty &&
            json_object_set_new(spec, "pty",
                                json_pack("{s:i, s:i}", "cols", (int) s->cols, "rows", (int) s->rows)) < 0)
                return NULL;
        return json_dumps(spec, JSON_COMPACT);
}
