/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "tests/security/evil.h"

int in_child(int (*f)(const Params *p), const Params *p) {
        pid_t pid = fork();
        int status;

        if (pid < 0)
                return errno;
        if (pid == 0)
                _exit(f(p));
        if (waitpid(pid, &status, 0) < 0)
                return errno;
        return WIFSIGNALED(status) ? PROBE_SIGNAL + WTERMSIG(status) : WEXITSTATUS(status);
}

static void read_params(Params *p) {
        char line[512];
        FILE *f = fopen("/params", "re");

        while (f && fgets(line, sizeof(line), f)) {
                char *value = strchr(line, '=');

                line[strcspn(line, "\n")] = 0;
                if (!value)
                        continue;
                *value++ = 0;
                if (strcmp(line, "uid") == 0)
                        p->uid = (uid_t) atoi(value);
                else if (strcmp(line, "daemon") == 0)
                        p->daemon = atoi(value);
                else if (strcmp(line, "neighbour") == 0)
                        p->neighbour = atoi(value);
                else if (strcmp(line, "neighbour_file") == 0)
                        (void) snprintf(p->neighbour_file, sizeof(p->neighbour_file), "%s", value);
                else if (strcmp(line, "control_path") == 0)
                        (void) snprintf(p->control_path, sizeof(p->control_path), "%s", value);
                else if (strcmp(line, "abstract") == 0)
                        (void) snprintf(p->abstract, sizeof(p->abstract), "%s", value);
                else if (strcmp(line, "own_root") == 0)
                        (void) snprintf(p->own_root, sizeof(p->own_root), "%s", value);
                else if (strcmp(line, "shm_key") == 0)
                        p->shm_key = atoi(value);
                else if (strcmp(line, "fsize") == 0)
                        p->fsize = strtoull(value, NULL, 10);
        }
        if (f)
                fclose(f);
}

static void describe(int answer_, char ret[static 32]) {
        const char *name = answer_ == 0              ? "0"
                           : answer_ >= PROBE_SIGNAL ? sigabbrev_np(answer_ - PROBE_SIGNAL)
                                                     : strerrorname_np(answer_);

        (void) snprintf(ret, 32, "%s%s", answer_ >= PROBE_SIGNAL ? "SIG" : "", name ? name : "?");
}

static void run_all(const Params *p, int out) {
        const Probe *const tables[] = { probes_files,   probes_privileges, probes_processes,
                                        probes_network, probes_resources,  probes_state };

        for (size_t i = 0; i < ELEMENTSOF(tables); i++)
                for (const Probe *probe = tables[i]; probe->name; probe++) {
                        char got[32], expected[32];

                        describe(probe->run(p), got);
                        describe(probe->expected, expected);
                        (void) dprintf(out, "%s %s %s\n", probe->name, got, expected);
                }
        (void) dprintf(out, "end\n");
}

/* The descriptor of the console in QEMU's command line; what the monitor reads from it is the console's
 * text. */
static int console_fd(int argc, char **argv) {
        static const char prefix[] = "socket,id=console,fd=";

        for (int i = 1; i < argc; i++)
                if (strncmp(argv[i], prefix, strlen(prefix)) == 0)
                        return atoi(argv[i] + strlen(prefix));
        return -EBADF;
}

/* evil-vmm [QEMU's arguments] | --direct | --kill-all | --sleep */
int main(int argc, char **argv) {
        Params p = {};
        int out;

        (void) signal(SIGPIPE, SIG_IGN);
        (void) signal(SIGXFSZ, SIG_IGN);
        read_params(&p);
        p.direct = argc > 1 && strcmp(argv[1], "--direct") == 0;
        if (argc > 1 && strcmp(argv[1], "--sleep") == 0)
                return (int) sleep(600);
        if (argc > 1 && strcmp(argv[1], "--kill-all") == 0)
                return kill(-1, SIGKILL) < 0 ? errno : 0;
        out = p.direct ? STDERR_FILENO : console_fd(argc, argv);
        if (out < 0)
                return 2;
        run_all(&p, out);
        return 0;
}
