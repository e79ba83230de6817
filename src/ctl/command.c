/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <getopt.h>
#include <stdio.h>

#include "basic/strings.h"
#include "ctl/command.h"

#define ANY VERB_ANY

const Verb verbs[] = {
        { "list", 0, 0, false, false, verb_list, "", "List capsules (the default)" },
        { "status", 0, ANY, false, false, verb_status, "[ID...]", "Show the service, or capsules" },
        { "create", 0, 1, false, false, verb_create, "[TEMPLATE]", "Create a capsule, print its id" },
        { "run", 2, ANY, true, false, verb_run, "TEMPLATE -- COMMAND...",
          "Run a command in a capsule of its own, then destroy it" },
        { "ping", 1, 1, false, false, verb_ping, "ID", "Check a capsule and count it as active" },
        { "destroy", 1, ANY, false, false, verb_destroy, "ID...", "Destroy capsules" },
        { "logs", 1, 1, false, false, verb_logs, "ID", "Show the console of a capsule" },
        { "exec", 2, ANY, true, false, verb_exec, "ID -- COMMAND...", "Run a command in a capsule" },
        { "shell", 1, ANY, true, false, verb_shell, "[USER@]ID [-- COMMAND...]",
          "Open a terminal in a capsule; ^] three times leaves it" },
        { "ps", 1, 1, false, false, verb_ps, "ID", "List the processes started from outside" },
        { "signal", 2, 3, false, false, verb_signal, "ID TAG|PID [SIGNAL]",
          "Signal one of them, and its group (TERM)" },
        { "attach", 2, 2, false, false, verb_attach, "ID TAG|PID",
          "See its output, and type if it has a terminal" },
        { "ls", 1, 2, false, false, verb_ls, "ID [PATH]", "List a directory of a capsule" },
        { "cat", 2, ANY, false, false, verb_cat, "ID PATH...", "Print files of a capsule" },
        { "copy-to", 3, ANY, false, true, verb_copy_to, "ID SOURCE... DEST",
          "Copy files and trees into a capsule ('-': a tar from stdin)" },
        { "copy-from", 3, ANY, false, true, verb_copy_from, "ID SOURCE... DEST",
          "Copy files and trees out of a capsule ('-': a tar to stdout)" },
        { "list-templates", 0, 0, false, false, verb_list_templates, "", "List templates" },
        { "build-template", 1, 1, false, false, verb_build_template, "NAME",
          "Build a template from its description" },
        { "import-template", 2, 2, false, false, verb_import_template, "NAME FILE.tar",
          "Make a template of a root file system tar ('-': stdin)" },
        { "remove-template", 1, ANY, false, false, verb_remove_template, "NAME...", "Remove templates" },
        { "list-jobs", 0, 0, false, false, verb_list_jobs, "", "List builds, imports and copies under way" },
        { "cancel-job", 1, 1, false, false, verb_cancel_job, "NUMBER", "Cancel one of them" },
        { "list-keys", 0, 0, false, false, verb_list_keys, "", "List keys of REST callers" },
        { "create-key", 1, 1, false, false, verb_create_key, "NAME", "Make a key, print it once" },
        { "revoke-key", 1, ANY, false, false, verb_revoke_key, "ID...", "Revoke keys" },
        { "doctor", 0, 0, false, false, verb_doctor, "", "Check what this host lacks, and say what to do" },
        { "version", 0, 0, false, false, verb_version, "", "Print versions" },
        {},
};

void command_help(void) {
        printf("wrennctl [OPTIONS…] VERB …\n\nRuns untrusted code in microVM capsules.\n\nVerbs:\n");
        for (const Verb *v = verbs; v->name; v++) {
                _cleanup_free_ char *left = strjoin(v->name, " ", v->arguments);

                printf("  %-36s %s\n", strempty(left), v->help);
        }
        printf("\n%s\nExit status: 0 success, 1 failure, 2 usage, 3 not running, 4 unknown; exec, run, shell and attach: the\n"
               "command's, 124 timed out, 125 wrennctl or the service failed, 126 not executable, 127 not found,\n"
               "128+n signal. See wrennctl(1).\n",
               options_help);
}

static const Verb* verb_find(const char *name) {
        for (const Verb *v = verbs; v->name; v++)
                if (streq(v->name, name))
                        return v;
        return NULL;
}

static int check_arguments(const CtlOptions *o, const Verb *v, char **arguments) {
        unsigned n = (unsigned) strv_length(arguments);

        if (n < v->min || n > v->max) {
                (void) fprintf(stderr, "Usage: wrennctl [OPTIONS…] %s %s\n", v->name, v->arguments);
                return EXIT_USAGE;
        }
        if (o->host && v->local_files && !strv_contains(arguments, "-"))
                return usage("%s with -H copies no files of this host: use tar and '-', or run it there.",
                             v->name);
        return 0;
}

int command_parse(CtlOptions *o, int argc, char **argv, const Verb **ret_verb, char ***ret_arguments) {
        char **arguments;
        const Verb *v;
        int r, first;

        r = options_parse(o, argc, argv, /* in_order= */ true);
        if (r != 0)
                return r;
        first = optind;
        v = verb_find(first < argc ? argv[first] : "list");
        if (!v)
                return usage("unknown verb '%s'.", argv[first]);
        arguments = argv + argc;
        if (first < argc) {
                r = options_parse(o, argc - first, argv + first, v->takes_command);
                if (r != 0)
                        return r;
                arguments = argv + first + optind;
                if (v->takes_command && arguments[0] && streq_ptr(arguments[1], "--")) {
                        char *separator = arguments[1];

                        arguments[1] = arguments[0]; /* means the same before, where -H may repeat it */
                        *arguments++ = separator;
                }
        }
        *ret_verb = v;
        *ret_arguments = arguments;
        return o->help || o->version ? 0 : check_arguments(o, v, arguments);
}

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

int remote_command(const CtlOptions *o, int argc, char **argv, bool tty, char ***ret) {
        const char *const words[] = { "ssh", tty ? "-t" : "-T", "--", o->host, "wrennctl" };
        _cleanup_strv_ char **command = NULL;
        int r = 0;

        for (size_t i = 0; i < ELEMENTSOF(words) && r >= 0; i++)
                r = strv_extend(&command, words[i]);
        for (int i = 1; i < argc && r >= 0; i++)
                if (argv[i])
                        r = strv_consume(&command, shell_quote(argv[i]));
        if (r < 0)
                return r;
        *ret = TAKE_PTR(command);
        return 0;
}
