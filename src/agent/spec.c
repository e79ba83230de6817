/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <sys/stat.h>

#include "agent/spec.h"
#include "basic/limits.h"
#include "basic/strings.h"

void spec_done(Spec *s) {
        free(s->cmd);
        strv_free(s->args);
        strv_free(s->env);
        free(s->cwd);
        free(s->user);
        free(s->tag);
        *s = (Spec) {};
}

static int parse_on_disconnect(const JsonField *f, json_t *v, void *field, Fault *reterr) {
        const char *s = json_string_value(v);
        bool *keep = field;

        if (!s || (!streq(s, "kill") && !streq(s, "keep")))
                return fault_set(reterr, FAULT_INVALID_ARGS, "%s: expected \"kill\" or \"keep\".", f->name);

        *keep = streq(s, "keep");
        return 0;
}

static const JsonField pty_fields[] = { { "cols", json_parse_u32, offsetof(SpecPty, cols),
                                          JSON_FIELD_ZERO_IS_DEFAULT, .min = 1, .max = PTY_COLS_MAX },
                                        { "rows", json_parse_u32, offsetof(SpecPty, rows),
                                          JSON_FIELD_ZERO_IS_DEFAULT, .min = 1, .max = PTY_ROWS_MAX },
                                        {} };

static int parse_pty(const JsonField *f, json_t *v, void *field, Fault *reterr) {
        SpecPty *pty = field;

        if (!json_is_object(v))
                return fault_set(reterr, FAULT_INVALID_ARGS, "%s: expected an object.", f->name);

        *pty = (SpecPty) { .wanted = true, .cols = PTY_COLS_DEFAULT, .rows = PTY_ROWS_DEFAULT };
        return json_dispatch(v, pty_fields, pty, reterr);
}

bool pty_size_is_valid(uint32_t cols, uint32_t rows) {
        return cols > 0 && cols <= PTY_COLS_MAX && rows > 0 && rows <= PTY_ROWS_MAX;
}

static const JsonField spec_fields[] = {
        { "cmd", json_parse_string, offsetof(Spec, cmd), .max = ARGV_ENV_BYTES_MAX },
        { "args", json_parse_strv, offsetof(Spec, args), .max = ARGV_MAX, .total_max = ARGV_ENV_BYTES_MAX },
        { "env", json_parse_map, offsetof(Spec, env), .max = ENV_MAX, .item_max = ENV_ENTRY_LEN_MAX,
          .total_max = ARGV_ENV_BYTES_MAX },
        { "cwd", json_parse_string, offsetof(Spec, cwd), .max = CWD_LEN_MAX },
        { "user", json_parse_string, offsetof(Spec, user), .max = NAME_MAX_LEN },
        { "tag", json_parse_string, offsetof(Spec, tag), .max = TAG_MAX_LEN },
        { "timeout_usec", json_parse_u64, offsetof(Spec, timeout_usec), .max = EXEC_TIMEOUT_USEC_MAX },
        { "stdin", json_parse_bool, offsetof(Spec, with_stdin) },
        { "on_disconnect", parse_on_disconnect, offsetof(Spec, keep) },
        { "shell_fallback", json_parse_bool, offsetof(Spec, shell_fallback) },
        { "batch", json_parse_bool, offsetof(Spec, batch) },
        { "pty", parse_pty, offsetof(Spec, pty) },
        {}
};

int spec_parse(const char *text, size_t n, Spec *ret, Fault *reterr) {
        _cleanup_(spec_done) Spec s = { .shell_fallback = true };
        _cleanup_json_ json_t *object = NULL;
        int r;

        r = json_parse_text(text, n, &object, reterr);
        if (r < 0)
                return r;
        r = json_dispatch(object, spec_fields, &s, reterr);
        if (r < 0)
                return r;
        if (isempty(s.cmd) && (!s.pty.wanted || strv_length(s.args) > 0))
                return fault_set(reterr, FAULT_INVALID_ARGS, "cmd: is required%s.",
                                 s.pty.wanted ? " with args" : "");

        *ret = s;
        s = (Spec) {};
        return 0;
}

char* spec_resolve_cwd(const Spec *s, const char *home) {
        if (isempty(s->cwd) || streq(s->cwd, "~"))
                return strdup(home);
        if (startswith(s->cwd, "~/"))
                return strjoin(home, s->cwd + 1);
        if (s->cwd[0] != '/')
                return strjoin(home, "/", s->cwd);
        return strdup(s->cwd);
}

static size_t name_length(const char *entry) {
        return strcspn(entry, "=");
}

/* Replaces the entry of the same name or adds one. */
static int env_put(char ***env, const char *entry) {
        size_t n = name_length(entry);

        STRV_FOREACH(e, *env)
                if (name_length(*e) == n && strncmp(*e, entry, n) == 0)
                        return free_and_strdup(e, entry);

        return strv_extend(env, entry);
}

static int env_put_value(char ***env, const char *name, const char *value) {
        _cleanup_free_ char *entry = strjoin(name, "=", value);

        return entry ? env_put(env, entry) : -ENOMEM;
}

const char* env_get(char *const *env, const char *name) {
        STRV_FOREACH(e, env) {
                const char *value = startswith(*e, name);

                if (value && *value == '=')
                        return value + 1;
        }

        return NULL;
}

int spec_build_env(const Spec *s, const User *u, char *const *defaults, char ***ret) {
        _cleanup_strv_ char **env = NULL;
        const char *const base[][2] = {
                { "PATH", DEFAULT_PATH }, { "HOME", u->home },          { "USER", u->name },
                { "LOGNAME", u->name },   { "TERM", PTY_TERM_DEFAULT },
        };
        int r;

        for (size_t i = 0; i < ELEMENTSOF(base) - (s->pty.wanted ? 0 : 1); i++) {
                r = env_put_value(&env, base[i][0], base[i][1]);
                if (r < 0)
                        return r;
        }

        STRV_FOREACH(e, defaults) {
                r = env_put(&env, *e);
                if (r < 0)
                        return r;
        }

        STRV_FOREACH(e, s->env) {
                r = env_put(&env, *e);
                if (r < 0)
                        return r;
        }

        *ret = TAKE_PTR(env);
        return 0;
}

static bool is_executable_file(const char *file, const char *cwd) {
        _cleanup_free_ char *path = file[0] == '/' ? strdup(file) : strjoin(cwd, "/", file);
        struct stat st;

        return path && stat(path, &st) >= 0 && S_ISREG(st.st_mode) && (st.st_mode & 0111) != 0;
}

int spec_build_argv(const Spec *s, const char *cwd, char ***ret) {
        _cleanup_strv_ char **argv = NULL;
        bool shell;
        int r;

        shell = strv_length(s->args) == 0 && s->shell_fallback &&
                (!strchr(s->cmd, '/') || !is_executable_file(s->cmd, cwd));
        if (shell) {
                r = strv_extend(&argv, "/bin/sh");
                if (r < 0)
                        return r;
                r = strv_extend(&argv, "-c");
                if (r < 0)
                        return r;
        }

        r = strv_extend(&argv, s->cmd);
        if (r < 0)
                return r;
        STRV_FOREACH(a, s->args) {
                r = strv_extend(&argv, *a);
                if (r < 0)
                        return r;
        }

        *ret = TAKE_PTR(argv);
        return 0;
}

int spec_build_candidates(const char *file, char *const *env, char ***ret) {
        _cleanup_strv_ char **list = NULL;
        const char *path;
        int r;

        if (strchr(file, '/')) {
                r = strv_extend(&list, file);
                if (r < 0)
                        return r;
                *ret = TAKE_PTR(list);
                return 0;
        }

        path = env_get(env, "PATH") ?: "/usr/bin:/bin";
        for (;;) {
                size_t n = strcspn(path, ":");

                r = n == 0 ? strv_extendf(&list, "./%s", file)
                           : strv_extendf(&list, "%.*s/%s", (int) n, path, file);
                if (r < 0)
                        return r;
                if (!path[n])
                        break;
                path += n + 1;
        }

        *ret = TAKE_PTR(list);
        return 0;
}

int spec_build_login(const User *u, char ***ret_argv, char ***ret_candidates) {
        _cleanup_strv_ char **argv = NULL, **list = NULL;
        int r;

        r = strv_extendf(&argv, "-%s", strrchr(u->shell, '/') + 1);
        if (r >= 0)
                r = strv_extend(&list, u->shell);
        if (r >= 0)
                r = strv_extend(&list, "/bin/sh");
        if (r < 0)
                return r;

        *ret_argv = TAKE_PTR(argv);
        *ret_candidates = TAKE_PTR(list);
        return 0;
}
