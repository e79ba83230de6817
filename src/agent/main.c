/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>

#include "agent/agent.h"
#include "agent/boot.h"
#include "agent/link.h"
#include "basic/fd.h"
#include "basic/files.h"
#include "basic/log.h"
#include "basic/strings.h"

#define OOM_SCORE_ADJ     "100" /* of processes of the API (api.md §6.2) */
#define SIGNALS_READ      8     /* each is pending once only */
#define INITRD_DELAY_USEC (500 * USEC_PER_MSEC)

typedef struct Main {
        Agent agent;
        Link *link;
        int signal_fd;
        LoopSource *signal_source;
        BootRest boot;
        LoopTimer initrd_timer;
} Main;

/* Before each wait: send, and once the answer to a poweroff is out, end. */
static void on_prepare(void *userdata) {
        Main *m = userdata;

        link_flush(m->link);
        if (m->agent.poweroff && link_is_flushed(m->link))
                loop_stop(m->agent.loop);
}

static void on_signal(uint32_t events, void *userdata) {
        struct signalfd_siginfo info[SIGNALS_READ];
        Main *m = userdata;
        ssize_t n;

        n = read(m->signal_fd, info, sizeof(info));
        for (size_t i = 0; n > 0 && i < (size_t) n / sizeof(info[0]); i++)
                if (info[i].ssi_signo == SIGCHLD)
                        process_table_reap(m->agent.processes);
                else
                        m->agent.poweroff = true; /* what root in the guest says to an init */
}

static void on_initrd(void *userdata) {
        Main *m = userdata;

        boot_drop_initrd(&m->boot);
}

/* Children inherit what is ignored, but not what is blocked: this way none has to set anything right. */
static void ignore_no_signals(void) {
        for (int sig = 1; sig < SIGRTMIN; sig++) {
                struct sigaction have;

                if (sigaction(sig, NULL, &have) >= 0 && have.sa_handler == SIG_IGN)
                        (void) signal(sig, SIG_DFL);
        }
}

static int main_init(Main *m, int port_fd, bool detached) {
        static const int signals[] = { SIGCHLD, SIGTERM, SIGINT, SIGPWR, SIGUSR1, SIGUSR2 };
        sigset_t mask;
        int r;

        /* For our children, who inherit it: none has to open a file for that. The kernel never chooses
         * PID 1. */
        (void) write_file_at(AT_FDCWD, "/proc/self/oom_score_adj", OOM_SCORE_ADJ, strlen(OOM_SCORE_ADJ));
        ignore_no_signals();
        (void) sigemptyset(&mask);
        for (size_t i = 0; i < ELEMENTSOF(signals); i++)
                (void) sigaddset(&mask, signals[i]);
        m->signal_fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
        if (m->signal_fd < 0)
                return -errno;
        (void) sigaddset(&mask, SIGPIPE);
        (void) sigprocmask(SIG_BLOCK, &mask, NULL);

        r = identity_init(&m->agent.identity, detached);
        if (r < 0)
                return r;
        r = loop_new(&m->agent.loop);
        if (r < 0)
                return r;
        r = loop_add(m->agent.loop, m->signal_fd, EPOLLIN, on_signal, m, &m->signal_source);
        if (r < 0)
                return r;
        r = process_table_new(m->agent.loop, &m->agent.processes);
        if (r < 0)
                return r;
        r = link_new(&m->agent, port_fd, &m->link);
        if (r < 0)
                return r;

        loop_set_prepare(m->agent.loop, on_prepare, m);
        loop_timer_start(m->agent.loop, &m->initrd_timer, INITRD_DELAY_USEC, on_initrd, m);
        return 0;
}

static void main_done(Main *m) {
        m->link = link_free(m->link);
        m->agent.processes = process_table_free(m->agent.processes);
        m->signal_source = loop_source_free(m->signal_source);
        m->signal_fd = close_fd(m->signal_fd);
        loop_timer_stop(&m->initrd_timer);
        m->agent.loop = loop_free(m->agent.loop);
        user_cache_done(&m->agent.users);
        identity_done(&m->agent.identity);
}

static int serve(Main *m, int port_fd, bool detached) {
        int r;

        r = main_init(m, port_fd, detached);
        if (r < 0)
                return log_error_errno(r, "Failed to start the agent: %m");

        r = loop_run(m->agent.loop);
        if (r < 0)
                return log_error_errno(r, "Failed to wait for events: %m");

        return 0;
}

/* PID 1: whatever goes wrong is said on the console and ends in a power off, never in a panic. */
static _Noreturn void run_guest(Main *m) {
        int port_fd, r;

        boot_console();
        log_open("wrenn-agent");
        r = boot_system(&m->boot);
        if (r >= 0) {
                port_fd = link_open_port();
                r = port_fd < 0 ? log_error_errno(port_fd, "Failed to open the control port: %m")
                                : serve(m, port_fd, /* detached= */ false);
        }
        if (r < 0)
                log_error("The guest cannot go on, powering off.");

        boot_poweroff(&m->boot);
        for (;;)
                (void) pause();
}

/* The agent without a guest: serves the stream on an inherited socket. For tests of everything but the boot.
 */
static int run_detached(Main *m, int argc, char *argv[]) {
        static const struct option options[] = { { "fd", required_argument, NULL, 'f' }, {} };
        int fd = -EBADF, c, r;

        while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0)
                if (c != 'f' || parse_int(optarg, &fd) < 0 || fd <= STDERR_FILENO)
                        return EXIT_FAILURE;
        if (fd < 0 || optind < argc) {
                (void) fputs("wrenn-agent is PID 1 of a wrenn guest; elsewhere: wrenn-agent --fd=SOCKET\n",
                             stderr);
                return EXIT_FAILURE;
        }

        log_open("wrenn-agent");
        r = fd_cloexec(fd, true);
        if (r >= 0)
                r = fd_nonblock(fd, true);
        if (r >= 0)
                r = serve(m, fd, /* detached= */ true);
        main_done(m);
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char *argv[]) {
        Main m = { .signal_fd = -EBADF, .boot = BOOT_REST_NULL };

        /* The heap stays: buffers come and go with every process, and under emulation each page fault shows.
         */
        (void) mallopt(M_TRIM_THRESHOLD, 4 * MIB);
        (void) mallopt(M_MMAP_THRESHOLD, 1 * MIB);
        (void) mallopt(M_TOP_PAD, 256 * KIB);

        if (getpid() == 1)
                run_guest(&m);
        return run_detached(&m, argc, argv);
}
