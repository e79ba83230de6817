/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <getopt.h>
#include <stdio.h>

#include "basic/limits.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "ctl/ctl.h"
#include "ctl/options.h"

const char options_help[] =
                "Options:\n"
                "  -h --help                Show this help\n"
                "     --version             Print the version\n"
                "  -a --all                 list: also stopped and failed capsules\n"
                "  -q --quiet               Print less; create-key: the key alone\n"
                "     --json=MODE           Output as JSON: short, pretty or off\n"
                "     --no-legend           No header and footer\n"
                "     --no-pager            Accepted for compatibility\n"
                "     --no-ask-password     Never ask for authorization on the terminal\n"
                "  -H --host=[USER@]HOST    Run there, by ssh\n"
                "     --team=TEAM           create-key, create, run, list: of this team\n"
                "     --default-template=T  create-key: template of creates that name none\n"
                "     --vcpus=N --memory=SIZE --disk=SIZE --timeout=TIME\n"
                "                           create, run: sizes like 512M, times like 5min;\n"
                "                           exec, run: --timeout= bounds the command\n"
                "     --label=NAME=VALUE    create, run: a label; list: only with it\n"
                "  -E --setenv=NAME=VALUE   create, run, exec, shell: environment\n"
                "  -u --user=USER           run, exec, shell: user in the capsule\n"
                "     --cwd=DIR             run, exec: directory in the capsule\n"
                "  -i --stdin               exec, run: pass standard input (default unless it is a terminal)\n"
                "     --no-stdin            exec, run: /dev/null instead\n"
                "  -t --tty                 exec, run: a terminal for the command\n"
                "     --no-wait             create: do not wait until it runs\n"
                "  -f --force               import-template: replace an existing one\n"
                "  -f --follow              logs: go on until the capsule ends\n"
                "  -n --lines=N             logs: only the last ones\n"
                "  -p --preserve            copy-from: keep owners, set-id bits, attributes\n";

enum {
        ARG_VERSION = 0x100,
        ARG_JSON,
        ARG_NO_LEGEND,
        ARG_NO_PAGER,
        ARG_NO_ASK_PASSWORD,
        ARG_TEAM,
        ARG_DEFAULT_TEMPLATE,
        ARG_VCPUS,
        ARG_MEMORY,
        ARG_DISK,
        ARG_TIMEOUT,
        ARG_LABEL,
        ARG_CWD,
        ARG_NO_STDIN,
        ARG_NO_WAIT,
        ARG_FOLLOW,
};

static const struct option long_options[] = {
        { "help", no_argument, NULL, 'h' },
        { "version", no_argument, NULL, ARG_VERSION },
        { "all", no_argument, NULL, 'a' },
        { "quiet", no_argument, NULL, 'q' },
        { "json", required_argument, NULL, ARG_JSON },
        { "no-legend", no_argument, NULL, ARG_NO_LEGEND },
        { "no-pager", no_argument, NULL, ARG_NO_PAGER },
        { "no-ask-password", no_argument, NULL, ARG_NO_ASK_PASSWORD },
        { "host", required_argument, NULL, 'H' },
        { "team", required_argument, NULL, ARG_TEAM },
        { "default-template", required_argument, NULL, ARG_DEFAULT_TEMPLATE },
        { "vcpus", required_argument, NULL, ARG_VCPUS },
        { "memory", required_argument, NULL, ARG_MEMORY },
        { "disk", required_argument, NULL, ARG_DISK },
        { "timeout", required_argument, NULL, ARG_TIMEOUT },
        { "label", required_argument, NULL, ARG_LABEL },
        { "setenv", required_argument, NULL, 'E' },
        { "user", required_argument, NULL, 'u' },
        { "cwd", required_argument, NULL, ARG_CWD },
        { "stdin", no_argument, NULL, 'i' },
        { "no-stdin", no_argument, NULL, ARG_NO_STDIN },
        { "no-wait", no_argument, NULL, ARG_NO_WAIT },
        { "force", no_argument, NULL, 'f' },
        { "tty", no_argument, NULL, 't' },
        { "follow", no_argument, NULL, ARG_FOLLOW },
        { "lines", required_argument, NULL, 'n' },
        { "preserve", no_argument, NULL, 'p' },
        {},
};

int usage(const char *format, ...) {
        va_list ap;

        (void) fputs("wrennctl: ", stderr);
        va_start(ap, format);
        (void) vfprintf(stderr, format, ap);
        va_end(ap);
        (void) fputs(" See wrennctl --help.\n", stderr);
        return EXIT_USAGE;
}

static int parse_json_mode(const char *s, OutputMode *ret) {
        static const char *const modes[] = {
                [OUTPUT_TABLE] = "off", [OUTPUT_JSON_SHORT] = "short", [OUTPUT_JSON_PRETTY] = "pretty"
        };

        for (size_t i = 0; i < ELEMENTSOF(modes); i++)
                if (streq(modes[i], s)) {
                        *ret = (OutputMode) i;
                        return 0;
                }
        return usage("--json=%s: expected short, pretty or off.", s);
}

/* NAME=VALUE into a vector. 0, or the exit status. */
static int parse_assignment(const char *s, const char *option, char ***v) {
        const char *equals = strchr(s, '=');

        if (!equals || equals == s)
                return usage("%s=%s: expected NAME=VALUE.", option, s);
        return strv_extend(v, s) < 0 ? log_error_errno(ENOMEM, "Failed to parse the options: %m") : 0;
}

/* Numbers, sizes and times. 0, or the exit status. */
static int parse_quantity(CtlOptions *o, int option, const char *s) {
        switch (option) {
        case ARG_VCPUS:
                return parse_u64(s, &o->vcpus) < 0 || o->vcpus < VCPUS_MIN || o->vcpus > VCPUS_MAX
                                       ? usage("--vcpus=%s: expected a number 1…32.", s)
                                       : 0;
        case ARG_MEMORY:
                return parse_size(s, &o->memory_bytes) < 0
                                       ? usage("--memory=%s: expected a size like 512M.", s)
                                       : 0;
        case ARG_DISK:
                return parse_size(s, &o->disk_bytes) < 0 ? usage("--disk=%s: expected a size like 5G.", s)
                                                         : 0;
        default:
                return parse_usec(s, &o->timeout_usec) < 0
                                       ? usage("--timeout=%s: expected a time like 5min.", s)
                                       : 0;
        }
}

static int parse_option(CtlOptions *o, int option) {
        switch (option) {
        case 'a':
                o->all = true;
                return 0;
        case 'q':
                o->quiet = true;
                return 0;
        case ARG_JSON:
                return parse_json_mode(optarg, &o->output);
        case ARG_NO_LEGEND:
                o->legend = false;
                return 0;
        case ARG_NO_PAGER:
                return 0;
        case ARG_NO_ASK_PASSWORD:
                o->ask_password = false;
                return 0;
        case 'H':
                o->host = optarg;
                return 0;
        case ARG_TEAM:
                o->team = optarg;
                return team_is_valid(optarg)
                                       ? 0
                                       : usage("--team=%s: expected 1 to 32 of a-z, 0-9 and _.", optarg);
        case ARG_DEFAULT_TEMPLATE:
                o->default_template = optarg;
                return 0;
        case ARG_VCPUS:
        case ARG_MEMORY:
        case ARG_DISK:
        case ARG_TIMEOUT:
                return parse_quantity(o, option, optarg);
        case ARG_LABEL:
                return parse_assignment(optarg, "--label", &o->labels);
        case 'E':
                return parse_assignment(optarg, "--setenv", &o->env);
        case 'u':
                o->user = optarg;
                return 0;
        case ARG_CWD:
                o->cwd = optarg;
                return 0;
        case 'i':
                o->interactive_stdin = true;
                return 0;
        case ARG_NO_STDIN:
                o->interactive_stdin = false;
                return 0;
        case ARG_NO_WAIT:
                o->no_wait = true;
                return 0;
        case 'f': /* one letter as everywhere; the verbs that know one do not know the other */
                o->force = o->follow = true;
                return 0;
        case ARG_FOLLOW:
                o->follow = true;
                return 0;
        case 't':
                o->tty = true;
                return 0;
        case 'p':
                o->preserve = true;
                return 0;
        case 'n':
                return parse_u64(optarg, &o->lines) < 0 ? usage("--lines=%s: expected a number.", optarg)
                                                        : 0;
        case 'h':
                o->help = true;
                return 0;
        case ARG_VERSION:
                o->version = true;
                return 0;
        default:
                return EXIT_USAGE; /* getopt has said why */
        }
}

/* The word of argv that holds this -H, and its value, out of it. */
static void take_out_host(char **argv) {
        char *word = argv[optind - 1];

        if (optarg == word) { /* the value is a word of its own: "-H x", "-qH x", "--host x" */
                argv[optind - 1] = NULL;
                word = argv[optind - 2];
                if (startswith(word, "--") || streq(word, "-H"))
                        argv[optind - 2] = NULL;
                else
                        word[strlen(word) - 1] = 0;
        } else if (startswith(word, "--") || optarg == word + 2)
                argv[optind - 1] = NULL;
        else
                optarg[-1] = 0;
}

int options_parse(CtlOptions *o, int argc, char **argv, bool in_order) {
        const char *letters = in_order ? "+haqH:E:u:itfn:p" : "haqH:E:u:itfn:p";
        int c, r;

        optind = 0; /* glibc: begins anew */
        while ((c = getopt_long(argc, argv, letters, long_options, NULL)) >= 0) {
                r = parse_option(o, c);
                if (r != 0)
                        return r < 0 ? EXIT_FAILURE : r;
                if (c == 'H')
                        take_out_host(argv);
        }
        return 0;
}

void options_done(CtlOptions *o) {
        o->labels = strv_free(o->labels);
        o->env = strv_free(o->env);
}
