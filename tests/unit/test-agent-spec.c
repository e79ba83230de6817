/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "agent/spec.h"
#include "basic/limits.h"
#include "basic/strings.h"
#include "tests/unit/test.h"

static void expect_list(char *const *have, const char *want) {
        char text[4096] = "";

        for (; have && *have; have++)
                (void) snprintf(text + strlen(text), sizeof(text) - strlen(text), "[%s]", *have);
        ASSERT_STREQ(text, want);
}

TEST(parse) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_(spec_done) Spec s = {};
        static const char text[] =
                        "{\"cmd\":\"ls\",\"args\":[\"-l\",\"\"],\"env\":{\"A\":\"1\"},\"cwd\":\"~\",\"user\":\"u\",\"tag\":\"t\","
                        "\"timeout_usec\":5,\"stdin\":true,\"on_disconnect\":\"keep\",\"shell_fallback\":false,\"later\":1}";

        ASSERT_OK(spec_parse(text, strlen(text), &s, &fault));
        ASSERT_STREQ(s.cmd, "ls");
        expect_list(s.args, "[-l][]");
        expect_list(s.env, "[A=1]");
        ASSERT_STREQ(s.cwd, "~");
        ASSERT_STREQ(s.user, "u");
        ASSERT_STREQ(s.tag, "t");
        ASSERT_EQ(s.timeout_usec, 5);
        ASSERT_TRUE(s.with_stdin && s.keep && !s.shell_fallback);
}

TEST(parse_defaults) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_(spec_done) Spec s = {};

        ASSERT_OK(spec_parse("{\"cmd\":\"x\"}", 11, &s, &fault));
        ASSERT_NULL(s.args);
        ASSERT_NULL(s.env);
        ASSERT_EQ(s.timeout_usec, 0);
        ASSERT_TRUE(!s.with_stdin && !s.keep && s.shell_fallback);
}

TEST(parse_refuses) {
        static const char *const cases[] = {
                "",
                "[]",
                "{}",
                "{\"cmd\":\"\"}",
                "{\"cmd\":1}",
                "{\"cmd\":\"x\",\"args\":{}}",
                "{\"cmd\":\"x\",\"args\":[1]}",
                "{\"cmd\":\"x\",\"env\":[]}",
                "{\"cmd\":\"x\",\"env\":{\"=\":\"\"}}",
                "{\"cmd\":\"x\",\"on_disconnect\":\"stay\"}",
                "{\"cmd\":\"x\",\"on_disconnect\":1}",
                "{\"cmd\":\"x\",\"timeout_usec\":-1}",
                "{\"cmd\":\"x\",\"stdin\":1}",
                "{\"cmd\":\"a\\u0000b\"}",
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(fault_done) Fault fault = FAULT_NULL;
                _cleanup_(spec_done) Spec s = {};

                if (spec_parse(cases[i], strlen(cases[i]), &s, &fault) != -EINVAL)
                        fail_msg("%s: not refused", cases[i]);
                ASSERT_EQ(fault.code, FAULT_INVALID_ARGS);
        }
}

/* {"cmd":"x","<name>":…} with a value of n bytes or entries. */
static int parse_sized(const char *name, const char *begin, const char *unit, size_t n, const char *end) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_(spec_done) Spec s = {};
        _cleanup_free_ char *text = NULL;
        size_t at;

        text = malloc(64 + strlen(name) + strlen(unit) * n);
        at = (size_t) sprintf(text, "{\"cmd\":\"x\",\"%s\":%s", name, begin);
        for (size_t i = 0; i < n; i++)
                at += (size_t) sprintf(text + at, "%s", unit);
        at += (size_t) sprintf(text + at, "%s}", end);
        return spec_parse(text, at, &s, &fault);
}

static int parse_pty(const char *text, SpecPty *ret, Fault *reterr) {
        _cleanup_(spec_done) Spec s = {};
        int r;

        r = spec_parse(text, strlen(text), &s, reterr);
        if (r >= 0)
                *ret = s.pty;
        return r;
}

TEST(pty) {
        static const struct {
                const char *text;
                int r;
                bool wanted;
                uint32_t cols, rows;
                const char *message;
        } cases[] = {
                { "{\"cmd\":\"x\"}", 0, false, 0, 0, NULL },
                { "{\"cmd\":\"x\",\"pty\":null}", 0, false, 0, 0, NULL },
                { "{\"cmd\":\"x\",\"pty\":{}}", 0, true, 80, 24, NULL },
                { "{\"cmd\":\"x\",\"pty\":{\"cols\":0,\"rows\":0}}", 0, true, 80, 24, NULL },
                { "{\"cmd\":\"x\",\"pty\":{\"cols\":1}}", 0, true, 1, 24, NULL },
                { "{\"cmd\":\"x\",\"pty\":{\"cols\":4096,\"rows\":4096}}", 0, true, 4096, 4096, NULL },
                { "{\"pty\":{},\"args\":[]}", 0, true, 80, 24, NULL }, /* the login shell */
                { "{\"pty\":{},\"args\":[\"a\"]}", -EINVAL, .message = "cmd: is required with args." },
                { "{}", -EINVAL, .message = "cmd: is required." },
                { "{\"cmd\":\"x\",\"pty\":true}", -EINVAL, .message = "pty: expected an object." },
                { "{\"cmd\":\"x\",\"pty\":{\"cols\":4097}}", -EINVAL,
                  .message = "cols: expected 1 to 4096, not 4097." },
                { "{\"cmd\":\"x\",\"pty\":{\"rows\":4097}}", -EINVAL,
                  .message = "rows: expected 1 to 4096, not 4097." },
                { "{\"cmd\":\"x\",\"pty\":{\"rows\":-1}}", -EINVAL,
                  .message = "rows: expected 1 to 4096, not -1." },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(fault_done) Fault fault = FAULT_NULL;
                SpecPty pty = {};

                if (parse_pty(cases[i].text, &pty, &fault) != cases[i].r)
                        fail_msg("%s", cases[i].text);
                ASSERT_STREQ(fault.message, cases[i].message);
                ASSERT_TRUE(pty.wanted == cases[i].wanted && pty.cols == cases[i].cols &&
                            pty.rows == cases[i].rows);
        }
}

TEST(pty_sizes) {
        ASSERT_TRUE(pty_size_is_valid(1, 1) && pty_size_is_valid(PTY_COLS_MAX, PTY_ROWS_MAX));
        ASSERT_TRUE(!pty_size_is_valid(0, 1) && !pty_size_is_valid(1, 0));
        ASSERT_TRUE(!pty_size_is_valid(PTY_COLS_MAX + 1, 1) && !pty_size_is_valid(1, PTY_ROWS_MAX + 1));
}

TEST(login) {
        _cleanup_strv_ char **argv = NULL, **candidates = NULL;
        User u = { .shell = (char *) "/usr/bin/zsh" };

        ASSERT_OK(spec_build_login(&u, &argv, &candidates));
        expect_list(argv, "[-zsh]");
        expect_list(candidates, "[/usr/bin/zsh][/bin/sh]");
}

TEST(bounds) {
        ASSERT_OK(parse_sized("args", "[\"\"", ",\"\"", ARGV_MAX - 1, "]"));
        ASSERT_EQ(parse_sized("args", "[\"\"", ",\"\"", ARGV_MAX, "]"), -EINVAL);
        ASSERT_EQ(parse_sized("args", "[\"", "a", ARGV_ENV_BYTES_MAX + 1, "\"]"), -EINVAL);
        ASSERT_OK(parse_sized("tag", "\"", "a", TAG_MAX_LEN, "\""));
        ASSERT_EQ(parse_sized("tag", "\"", "a", TAG_MAX_LEN + 1, "\""), -EINVAL);
        ASSERT_OK(parse_sized("cwd", "\"", "a", CWD_LEN_MAX, "\""));
        ASSERT_EQ(parse_sized("cwd", "\"", "a", CWD_LEN_MAX + 1, "\""), -EINVAL);
        ASSERT_EQ(parse_sized("env", "{\"a\":\"", "a", ENV_ENTRY_LEN_MAX + 1, "\"}"), -EINVAL);
}

TEST(cwd) {
        static const struct {
                const char *cwd, *want;
        } cases[] = {
                { NULL, "/home/u" },
                { "", "/home/u" },
                { "~", "/home/u" },
                { "~/x y", "/home/u/x y" },
                { "sub/dir", "/home/u/sub/dir" },
                { "/", "/" },
                { "/abs", "/abs" },
                { "~other", "/home/u/~other" },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                Spec s = { .cwd = (char *) cases[i].cwd };
                _cleanup_free_ char *have = spec_resolve_cwd(&s, "/home/u");

                ASSERT_STREQ(have, cases[i].want);
        }
}

TEST(environment) {
        char *request[] = { (char *) "B=2", (char *) "PATH=/p", (char *) "WRENN_SANDBOX=mine", NULL };
        char *defaults[] = { (char *) "WRENN_SANDBOX=true", (char *) "B=1", NULL };
        User u = { .name = (char *) "u", .home = (char *) "/h" };
        _cleanup_strv_ char **env = NULL;
        Spec s = { .env = request };

        ASSERT_OK(spec_build_env(&s, &u, defaults, &env));
        expect_list(env, "[PATH=/p][HOME=/h][USER=u][LOGNAME=u][WRENN_SANDBOX=mine][B=2]");
        ASSERT_STREQ(env_get(env, "HOME"), "/h");
        ASSERT_NULL(env_get(env, "TERM"));
        ASSERT_NULL(env_get(env, "HOM"));
        ASSERT_NULL(env_get(NULL, "HOME"));
}

TEST(environment_of_a_terminal) {
        char *request[] = { (char *) "TERM=vt100", NULL };
        User u = { .name = (char *) "u", .home = (char *) "/h" };
        _cleanup_strv_ char **env = NULL, **given = NULL;
        Spec s = { .pty.wanted = true };

        ASSERT_OK(spec_build_env(&s, &u, NULL, &env));
        ASSERT_STREQ(env_get(env, "TERM"), "xterm-256color");
        s.env = request;
        ASSERT_OK(spec_build_env(&s, &u, NULL, &given));
        ASSERT_STREQ(env_get(given, "TERM"), "vt100");
}

TEST(argv) {
        char *args[] = { (char *) "-c", (char *) "a b", NULL };
        static const struct {
                const char *cmd;
                bool with_args, shell;
                const char *want;
        } cases[] = {
                { "ls", true, true, "[ls][-c][a b]" },
                { "ls -l | cat", false, true, "[/bin/sh][-c][ls -l | cat]" },
                { "ls", false, true, "[/bin/sh][-c][ls]" },
                { "ls", false, false, "[ls]" },
                { "/bin/sh", false, true, "[/bin/sh]" }, /* an executable file */
                { "bin/sh", false, true, "[bin/sh]" },   /* relative to cwd */
                { "/etc/passwd", false, true, "[/bin/sh][-c][/etc/passwd]" },
                { "/bin", false, true, "[/bin/sh][-c][/bin]" },
                { "/no/such/file", false, true, "[/bin/sh][-c][/no/such/file]" },
                { "/no/such/file", false, false, "[/no/such/file]" },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                Spec s = { .cmd = (char *) cases[i].cmd,
                           .args = cases[i].with_args ? args : NULL,
                           .shell_fallback = cases[i].shell };
                _cleanup_strv_ char **argv = NULL;

                ASSERT_OK(spec_build_argv(&s, "/", &argv));
                expect_list(argv, cases[i].want);
        }
}

TEST(candidates) {
        static const struct {
                const char *file, *path, *want;
        } cases[] = {
                { "ls", "PATH=/a:/b", "[/a/ls][/b/ls]" },
                { "ls", "PATH=:/b:", "[./ls][/b/ls][./ls]" },
                { "ls", "PATH=", "[./ls]" },
                { "ls", "X=1", "[/usr/bin/ls][/bin/ls]" },
                { "./ls", "PATH=/a", "[./ls]" },
                { "/x/ls", "PATH=/a", "[/x/ls]" },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                char *env[] = { (char *) cases[i].path, NULL };
                _cleanup_strv_ char **list = NULL;

                ASSERT_OK(spec_build_candidates(cases[i].file, env, &list));
                expect_list(list, cases[i].want);
        }
}
