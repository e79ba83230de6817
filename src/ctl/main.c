/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Command line of wrennctl: options and verbs are tables; see wrennctl(1). */

#include <getopt.h>
#include <stdio.h>

#include "basic/limits.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "config.h"
#include "ctl/ctl.h"

typedef struct Verb {
        const char *name;
        unsigned min, max;  /* arguments; UINT_MAX: any number */
        bool takes_command; /* options end at the second word: the rest is the command */
        CtlVerb function;
        const char *arguments, *help;
} Verb;

#define ANY UINT32_MAX

static const Verb verbs[] = {
        { "list", 0, 0, false, verb_list, "", "List capsules (the default)" },
        { "status", 0, ANY, false, verb_status, "[ID...]", "Show the service, or capsules" },
        { "create", 0, 1, false, verb_create, "[TEMPLATE]", "Create a capsule, print its id" },
        { "run", 2, ANY, true, verb_run, "TEMPLATE -- COMMAND...",
          "Run a command in a capsule of its own, then destroy it" },
        { "exec", 2, ANY, true, verb_exec, "ID -- COMMAND...", "Run a command in a capsule" },
        { "ping", 1, 1, false, verb_ping, "ID", "Check a capsule and count it as active" },
        { "destroy", 1, ANY, false, verb_destroy, "ID...", "Destroy capsules" },
        { "list-templates", 0, 0, false, verb_list_templates, "", "List templates" },
        { "build-template", 1, 1, false, verb_build_template, "NAME",
          "Build a template from its description" },
        { "import-template", 2, 2, false, verb_import_template, "NAME FILE.tar",
          "Make a template of a root file system tar ('-': stdin)" },
        { "remove-template", 1, ANY, false, verb_remove_template, "NAME...", "Remove templates" },
        { "list-jobs", 0, 0, false, verb_list_jobs, "", "List builds and imports under way" },
        { "cancel-job", 1, 1, false, verb_cancel_job, "NUMBER", "Cancel one of them" },
        { "list-keys", 0, 0, false, verb_list_keys, "", "List keys of REST callers" },
        { "create-key", 1, 1, false, verb_create_key, "NAME", "Make a key, print it once" },
        { "revoke-key", 1, ANY, false, verb_revoke_key, "ID...", "Revoke keys" },
        { "doctor", 0, 0, false, verb_doctor, "", "Check what this host lacks, and say what to do" },
        { "version", 0, 0, false, verb_version, "", "Print versions" },
};

static const char option_help[] =
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
                "  -E --setenv=NAME=VALUE   create, run, exec: environment\n"
                "  -u --user=USER  --cwd=DIR\n"
                "                           run, exec: user and directory in the capsule\n"
                "  -i --stdin               exec, run: pass standard input (default unless it is a terminal)\n"
                "     --no-stdin            exec, run: /dev/null instead\n"
                "     --no-wait             create: do not wait until it runs\n"
                "  -f --force               import-template: replace an existing one\n";

static void print_help(void) {
        printf("wrennctl [OPTIONS…] VERB …\n\nRuns untrusted code in microVM capsules.\n\nVerbs:\n");
        for (size_t i = 0; i < ELEMENTSOF(verbs); i++) {
                _cleanup_free_ char *left = strjoin(verbs[i].name, " ", verbs[i].arguments);

                printf("  %-36s %s\n", strempty(left), verbs[i].help);
        }
        printf("\n%s\nExit status: 0 success, 1 failure, 2 usage, 3 not running, 4 unknown; exec and run: the command's, 124 timed out,\n"
               "125 wrennctl or the service failed, 126 not executable, 127 not found, 128+n signal. See wrennctl(1).\n",
               option_help);
}

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
        {},
};

/* Says what is wrong with the command line; the exit status for it. */
static int usage(const char *format, ...) _printf_(1, 2);
static int usage(const char *format, ...) {
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
        case 'f':
                o->force = true;
                return 0;
        default:
                return EXIT_USAGE; /* getopt has said why */
        }
}

/* Options until the first word that is none (in_order) or anywhere. < 0: go on; else the exit status. */
static int parse_options(CtlOptions *o, int argc, char **argv, bool in_order) {
        int c, r;

        while ((c = getopt_long(argc, argv, in_order ? "+haqH:E:u:if" : "haqH:E:u:if", long_options,
                                NULL)) >= 0) {
                if (c == 'h') {
                        print_help();
                        return 0;
                }
                if (c == ARG_VERSION)
                        return verb_version(NULL, NULL);
                r = parse_option(o, c);
                if (r != 0)
                        return r < 0 ? EXIT_FAILURE : r;
        }
        return -1;
}

static const Verb* verb_find(const char *name) {
        for (size_t i = 0; i < ELEMENTSOF(verbs); i++)
                if (streq(verbs[i].name, name))
                        return verbs + i;
        return NULL;
}

static int verb_dispatch(Ctl *ctl, const Verb *verb, char **arguments) {
        unsigned n = (unsigned) strv_length(arguments);
        int r;

        if (n < verb->min || n > verb->max) {
                (void) fprintf(stderr, "Usage: wrennctl [OPTIONS…] %s %s\n", verb->name, verb->arguments);
                return EXIT_USAGE;
        }
        r = verb->function(ctl, arguments);
        return r < 0 ? EXIT_FAILURE : r;
}

/* The bus over ssh passes no fds, so the whole command runs there. */
/* In single quotes, which protect everything from the remote shell but themselves. NULL on out of memory. */
static char* shell_quote(const char *s) {
        char *quoted = malloc(4 * strlen(s) + 3), *p = quoted;

        if (!quoted)
                return NULL;
        *p++ = '\'';
        for (; *s; s++)
                if (*s == '\'')
                        p = stpcpy(p, "'\\''");
                else
                        *p++ = *s;
        *p++ = '\'';
        *p = 0;
        return quoted;
}

/* Length in words of a -H option at argv[0], or 0. */
static int host_option_length(char *const *argv) {
        if (streq(argv[0], "-H") || streq(argv[0], "--host"))
                return 2;
        return startswith(argv[0], "--host=") || startswith(argv[0], "-H") ? 1 : 0;
}

/* The bus over ssh passes no fds, so the whole command runs there. */
static int run_on_host(int argc, char **argv, const char *host) {
        const char *const words[] = { "ssh", isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) ? "-t" : "-T",
                                      "--", host, "wrennctl" };
        _cleanup_strv_ char **command = NULL;
        int r = 0;

        for (size_t i = 0; i < ELEMENTSOF(words) && r >= 0; i++)
                r = strv_extend(&command, words[i]);
        for (int i = 1; i < argc && r >= 0;) {
                int n = host_option_length(argv + i);

                if (n == 0)
                        r = strv_consume(&command, shell_quote(argv[i]));
                i += MAX(n, 1);
        }
        if (r < 0)
                return log_error_errno(r, "Failed to make the command: %m");
        (void) execvp("ssh", command);
        (void) log_error_errno(errno, "Failed to run ssh: %m");
        return EXIT_FAILURE;
}

int main(int argc, char **argv) {
        Ctl ctl = { .options = { .legend = true,
                                 .ask_password = true,
                                 .interactive_stdin = !isatty(STDIN_FILENO) } };
        const Verb *verb = verbs;
        char **arguments = NULL;
        int r;

        log_open("wrennctl");
        r = parse_options(&ctl.options, argc, argv, /* in_order= */ true);
        if (r < 0 && optind < argc) {
                char **rest = argv + optind;
                int n = argc - optind;

                verb = verb_find(rest[0]);
                if (!verb)
                        r = usage("unknown verb '%s'.", rest[0]);
                else {
                        optind = 0;
                        r = parse_options(&ctl.options, n, rest, verb->takes_command);
                        arguments = rest + optind;
                        if (r < 0 && verb->takes_command && arguments[0] && arguments[1] &&
                            streq(arguments[1], "--")) {
                                arguments[1] = arguments[0];
                                arguments++;
                        }
                }
        }
        if (r < 0)
                r = ctl.options.host ? run_on_host(argc, argv, ctl.options.host)
                                     : verb_dispatch(&ctl, verb, arguments ?: (char *[]) { NULL });
        ctl_done(&ctl);
        if (fflush(stdout) != 0 && r == 0)
                r = EXIT_FAILURE;
        return r < 0 ? EXIT_FAILURE : r;
}
