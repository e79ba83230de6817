/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>

#include "basic/fd.h"
#include "basic/strings.h"
#include "ctl/command.h"
#include "test.h"

/* One command line, split at blanks; its words may be changed by the parser. */
typedef struct Line {
        CtlOptions options;
        const Verb *verb;
        char **words, **arguments, *kept[32];
        int argc, status;
} Line;

/* What the parser says about wrong ones is not for the test's output. */
static int quiet_begin(void) {
        int saved = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3), null = open("/dev/null", O_WRONLY | O_CLOEXEC);

        (void) dup2(null, STDERR_FILENO);
        (void) close_fd(null);
        return saved;
}

static void quiet_end(int saved) {
        (void) fflush(stderr);
        (void) dup2(saved, STDERR_FILENO);
        (void) close_fd(saved);
}

static void line_parse(Line *l, const char *text) {
        int saved = quiet_begin();

        *l = (Line) { .options = CTL_OPTIONS_DEFAULT, .words = strv_split(text, " ") };
        l->argc = (int) strv_length(l->words);
        memcpy(l->kept, l->words, (size_t) l->argc * sizeof(char *));
        l->status = command_parse(&l->options, l->argc, l->words, &l->verb, &l->arguments);
        quiet_end(saved);
}

static void line_done(Line *l) {
        options_done(&l->options);
        for (int i = 0; i < l->argc; i++)
                free(l->kept[i]);
        free(l->words);
}

static char* joined(char *const *v) {
        char *text = strdup("");

        STRV_FOREACH(i, v) {
                char *longer = strjoin(text, *text ? " " : "", *i);

                free(text);
                text = longer;
        }
        return text;
}

TEST(command_lines) {
        static const struct {
                const char *line;
                int status;
                const char *verb, *arguments;
        } cases[] = {
                { "wrennctl", 0, "list", "" },
                { "wrennctl -a", 0, "list", "" },
                { "wrennctl list --all", 0, "list", "" },
                { "wrennctl status a b", 0, "status", "a b" },
                { "wrennctl status -q a --json=short b", 0, "status", "a b" },
                { "wrennctl nosuch", 2, NULL, NULL },
                { "wrennctl --nosuch", 2, NULL, NULL },
                { "wrennctl destroy", 2, NULL, NULL },
                { "wrennctl create a b", 2, NULL, NULL },
                { "wrennctl exec cl-1", 2, NULL, NULL },
                { "wrennctl exec cl-1 --", 2, NULL, NULL },
                { "wrennctl exec cl-1 ls -la", 0, "exec", "cl-1 ls -la" },
                { "wrennctl exec cl-1 -- ls -la -- -q", 0, "exec", "cl-1 ls -la -- -q" },
                { "wrennctl exec -u me cl-1 -- -x", 0, "exec", "cl-1 -x" },
                { "wrennctl exec -- cl-1 ls", 0, "exec", "cl-1 ls" },
                { "wrennctl shell cl-1", 0, "shell", "cl-1" },
                { "wrennctl shell me@cl-1 -- sh -l", 0, "shell", "me@cl-1 sh -l" },
                { "wrennctl shell", 2, NULL, NULL },
                { "wrennctl ps cl-1 x", 2, NULL, NULL },
                { "wrennctl signal cl-1 tag HUP", 0, "signal", "cl-1 tag HUP" },
                { "wrennctl signal cl-1", 2, NULL, NULL },
                { "wrennctl attach cl-1 tag", 0, "attach", "cl-1 tag" },
                { "wrennctl logs cl-1 -f", 0, "logs", "cl-1" },
                { "wrennctl logs -n x cl-1", 2, NULL, NULL },
                { "wrennctl ls cl-1", 0, "ls", "cl-1" },
                { "wrennctl cat cl-1 -- -odd", 0, "cat", "cl-1 -odd" },
                { "wrennctl cat cl-1", 2, NULL, NULL },
                { "wrennctl --json=x list", 2, NULL, NULL },
                { "wrennctl --vcpus=0 create", 2, NULL, NULL },
                { "wrennctl --memory=lots create", 2, NULL, NULL },
                { "wrennctl -E novalue exec a b", 2, NULL, NULL },
                { "wrennctl --team=A-B list", 2, NULL, NULL },
                { "wrennctl --help destroy", 0, "destroy", "" },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *arguments = NULL;
                Line l;

                line_parse(&l, cases[i].line);
                if (l.status != cases[i].status)
                        fail_msg("%s: %i", cases[i].line, l.status);
                if (l.status == 0) {
                        ASSERT_STREQ(l.verb->name, cases[i].verb);
                        arguments = joined(l.arguments);
                        ASSERT_STREQ(arguments, cases[i].arguments);
                }
                line_done(&l);
        }
}

TEST(options) {
        Line l;

        line_parse(&l,
                   "wrennctl exec -qt --cwd=/x -u me -E A=1 --setenv=B=2 --timeout=2min --no-ask-password cl-1 -a");
        ASSERT_EQ(l.status, 0);
        ASSERT_TRUE(l.options.quiet && l.options.tty && !l.options.ask_password && l.options.legend);
        ASSERT_FALSE(l.options.all);
        ASSERT_STREQ(l.options.cwd, "/x");
        ASSERT_STREQ(l.options.user, "me");
        ASSERT_STREQ(l.options.env[1], "B=2");
        ASSERT_EQ(l.options.timeout_usec, 120 * USEC_PER_SEC);
        line_done(&l);

        line_parse(&l, "wrennctl logs -f -n 10 --json=pretty cl-1");
        ASSERT_TRUE(l.options.follow);
        ASSERT_EQ(l.options.lines, 10);
        ASSERT_EQ(l.options.output, OUTPUT_JSON_PRETTY);
        line_done(&l);

        line_parse(&l, "wrennctl create --vcpus=2 --memory=1G --disk=2G --label=a=b --no-wait");
        ASSERT_EQ(l.options.vcpus, 2);
        ASSERT_EQ(l.options.memory_bytes, GIB);
        ASSERT_EQ(l.options.disk_bytes, 2 * GIB);
        ASSERT_STREQ(l.options.labels[0], "a=b");
        ASSERT_TRUE(l.options.no_wait);
        line_done(&l);
}

/* The rest of the command line reaches the other host as it is, and -H does not reach it at all. */
TEST(another_host) {
        static const struct {
                const char *line, *host, *remote;
        } cases[] = {
                { "wrennctl -H h list", "h", "'list'" },
                { "wrennctl -Hh list", "h", "'list'" },
                { "wrennctl -qH h list", "h", "'-q' 'list'" },
                { "wrennctl -qHh list", "h", "'-q' 'list'" },
                { "wrennctl --host h list -a", "h", "'list' '-a'" },
                { "wrennctl --host=me@h list", "me@h", "'list'" },
                { "wrennctl --hos h list", "h", "'list'" },
                { "wrennctl list -H h -a", "h", "'list' '-a'" },
                { "wrennctl exec -H h cl-1 -- grep -H it's", "h",
                  "'exec' '--' 'cl-1' 'grep' '-H' 'it'\\''s'" },
                { "wrennctl -H h shell cl-1", "h", "'shell' 'cl-1'" },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *expected = NULL, *got = NULL;
                _cleanup_strv_ char **command = NULL;
                Line l;

                line_parse(&l, cases[i].line);
                ASSERT_EQ(l.status, 0);
                ASSERT_STREQ(l.options.host, cases[i].host);
                ASSERT_OK(remote_command(&l.options, l.argc, l.words, i % 2 == 0, &command));
                got = joined(command);
                expected = strjoin("ssh ", i % 2 == 0 ? "-t" : "-T", " -- ", cases[i].host, " wrennctl ",
                                   cases[i].remote);
                ASSERT_STREQ(got, expected);
                line_done(&l);
        }
}

TEST(verbs_are_complete) {
        for (const Verb *v = verbs; v->name; v++) {
                ASSERT_NOT_NULL(v->function);
                ASSERT_TRUE(v->min <= v->max && !isempty(v->help));
                for (const Verb *w = verbs; w < v; w++)
                        ASSERT_FALSE(streq(v->name, w->name));
        }
}
