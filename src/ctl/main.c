/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <stdio.h>

#include "basic/fd.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "ctl/command.h"

/* The bus over ssh passes no fds, so the whole command runs there. */
static int run_on_host(const CtlOptions *o, int argc, char **argv) {
        _cleanup_strv_ char **command = NULL;
        int r;

        r = remote_command(o, argc, argv, isatty(STDIN_FILENO) && isatty(STDOUT_FILENO), &command);
        if (r < 0)
                return log_error_errno(r, "Failed to make the command: %m");
        (void) execvp(command[0], command);
        return log_error_errno(errno, "Failed to run ssh: %m");
}

/* What was closed is empty, so that nothing of ours gets its number. */
static void open_standard_streams(void) {
        int fd;

        do
                fd = open("/dev/null", O_RDWR);
        while (fd >= 0 && fd <= STDERR_FILENO);
        (void) close_fd(fd);
}

int main(int argc, char **argv) {
        Ctl ctl = { .options = CTL_OPTIONS_DEFAULT };
        char **arguments = NULL;
        const Verb *verb = NULL;
        int r;

        open_standard_streams();
        log_open("wrennctl");
        ctl.options.interactive_stdin = !isatty(STDIN_FILENO);
        r = command_parse(&ctl.options, argc, argv, &verb, &arguments);
        if (r == 0 && ctl.options.help)
                command_help();
        else if (r == 0 && ctl.options.version)
                r = verb_version(NULL, NULL);
        else if (r == 0)
                r = ctl.options.host ? run_on_host(&ctl.options, argc, argv)
                                     : verb->function(&ctl, arguments);
        ctl_done(&ctl);
        if (fflush(stdout) != 0 && r == 0)
                r = EXIT_FAILURE;
        return r < 0 ? EXIT_FAILURE : r;
}
