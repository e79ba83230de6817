/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Other processes, the network, resources. */

#include <fcntl.h>
#include <mqueue.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>

#include "launch/launch.h"
#include "tests/security/evil.h"

static int trace(pid_t pid) {
        return answer(ptrace(PTRACE_ATTACH, pid, NULL, NULL));
}

static int read_memory(pid_t pid) {
        char byte;
        struct iovec local = { &byte, 1 }, remote = { (void *) read_memory, 1 };

        return answer(process_vm_readv(pid, &local, 1, &remote, 1, 0));
}

static int trace_daemon(const Params *p) {
        return trace(p->daemon);
}

static int trace_neighbour(const Params *p) {
        return trace(p->neighbour);
}

static int trace_parent(const Params *p) {
        return trace(getppid());
}

static int read_daemon(const Params *p) {
        return read_memory(p->daemon);
}

static int read_neighbour(const Params *p) {
        return read_memory(p->neighbour);
}

/* The monitor has our uid and must still be out of reach. */
static int read_parent(const Params *p) {
        return read_memory(getppid());
}

static int kill_daemon(const Params *p) {
        return answer(kill(p->daemon, SIGTERM));
}

static int kill_neighbour(const Params *p) {
        return answer(kill(p->neighbour, SIGKILL));
}

static int kill_init(const Params *p) {
        return answer(kill(1, 0)); /* asks only: a launcher without its steps runs this, too */
}

static int steal_fd(const Params *p) {
        return answer(syscall(SYS_pidfd_getfd, 0, 0, 0));
}

static int compare(const Params *p) {
        return answer(syscall(SYS_kcmp, getpid(), getppid(), 0, 0, 0));
}

static int daemon_priority(const Params *p) {
        return answer(setpriority(PRIO_PROCESS, (id_t) p->daemon, 19));
}

static int daemon_affinity(const Params *p) {
        cpu_set_t set;

        CPU_ZERO(&set);
        CPU_SET(0, &set);
        return answer(sched_setaffinity(p->daemon, sizeof(set), &set));
}

static int daemon_limits(const Params *p) {
        struct rlimit rl;

        return answer(prlimit(p->daemon, RLIMIT_NOFILE, NULL, &rl));
}

const Probe probes_processes[] = {
        { "ptrace-daemon", trace_daemon, EPERM },
        { "ptrace-neighbour", trace_neighbour, EPERM },
        { "ptrace-monitor", trace_parent, EPERM },
        { "read-daemon", read_daemon, EPERM },
        { "read-neighbour", read_neighbour, EPERM },
        { "read-monitor", read_parent, EPERM },
        { "kill-daemon", kill_daemon, EPERM },
        { "kill-neighbour", kill_neighbour, EPERM },
        { "kill-init", kill_init, EPERM },
        { "pidfd-getfd", steal_fd, EPERM },
        { "kcmp", compare, EPERM },
        { "priority-daemon", daemon_priority, EPERM },
        { "affinity-daemon", daemon_affinity, EPERM },
        { "limits-daemon", daemon_limits, EPERM },
        {},
};

#define SOCKET_PROBE(name, family, type)                           \
        static int name(const Params *p) {                         \
                int fd = socket(family, (type) | SOCK_CLOEXEC, 0); \
                if (fd < 0)                                        \
                        return errno;                              \
                close(fd);                                         \
                return 0;                                          \
        }

SOCKET_PROBE(inet, AF_INET, SOCK_STREAM)
SOCKET_PROBE(inet_raw, AF_INET, SOCK_RAW)
SOCKET_PROBE(inet6, AF_INET6, SOCK_DGRAM)
SOCKET_PROBE(netlink, AF_NETLINK, SOCK_RAW)
SOCKET_PROBE(packet, AF_PACKET, SOCK_RAW)
SOCKET_PROBE(vsock, AF_VSOCK, SOCK_STREAM)
SOCKET_PROBE(alg, AF_ALG, SOCK_SEQPACKET)
SOCKET_PROBE(key, AF_KEY, SOCK_RAW)
SOCKET_PROBE(xdp, AF_XDP, SOCK_RAW)
SOCKET_PROBE(bluetooth, AF_BLUETOOTH, SOCK_RAW)

static int connect_unix(const char *name, bool abstract) {
        struct sockaddr_un sa = { .sun_family = AF_UNIX };
        size_t n = strlen(name);
        int fd, r;

        if (n + 1 >= sizeof(sa.sun_path))
                return ENAMETOOLONG;
        memcpy(sa.sun_path + abstract, name, n);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return ENODEV;
        r = answer(connect(fd, (struct sockaddr *) &sa,
                           (socklen_t) (offsetof(struct sockaddr_un, sun_path) + abstract + n)));
        close(fd);
        return r;
}

static int abstract_socket(const Params *p) {
        return connect_unix(p->abstract, true);
}

static int system_bus(const Params *p) {
        return connect_unix("/run/dbus/system_bus_socket", false);
}

static int api_socket(const Params *p) {
        return connect_unix("/run/wrenn/api.sock", false);
}

static int journal_socket(const Params *p) {
        return connect_unix("/run/systemd/journal/stdout", false);
}

static int control_socket(const Params *p) {
        return connect_unix(p->control_path, false);
}

static int shared_memory(const Params *p) {
        return answer(shmget(p->shm_key, 1, 0));
}

static int message_queue(const Params *p) {
        mqd_t q = mq_open("/evil", O_CREAT | O_RDWR, 0600, NULL);

        return q == (mqd_t) -1 ? errno : 0;
}

const Probe probes_network[] = {
        { "inet", inet, EAFNOSUPPORT },
        { "inet-raw", inet_raw, EAFNOSUPPORT },
        { "inet6", inet6, EAFNOSUPPORT },
        { "netlink", netlink, EAFNOSUPPORT },
        { "packet", packet, EAFNOSUPPORT },
        { "vsock", vsock, EAFNOSUPPORT },
        { "alg", alg, EAFNOSUPPORT },
        { "key-socket", key, EAFNOSUPPORT },
        { "xdp", xdp, EAFNOSUPPORT },
        { "bluetooth", bluetooth, EAFNOSUPPORT },
        { "abstract-socket", abstract_socket, ECONNREFUSED },
        { "system-bus", system_bus, ENOENT },
        { "api-socket", api_socket, ENOENT },
        { "journal-socket", journal_socket, ENOENT },
        { "control-socket", control_socket, ENOENT },
        { "shared-memory", shared_memory, ENOENT },
        { "message-queue", message_queue, EMFILE },
        {},
};

static int raise_limit(int resource) {
        struct rlimit rl;

        if (getrlimit((unsigned) resource, &rl) < 0)
                return ENODEV;
        rl.rlim_cur = ++rl.rlim_max;
        return answer(setrlimit((unsigned) resource, &rl));
}

static int raise_fsize(const Params *p) {
        return raise_limit(RLIMIT_FSIZE);
}

static int raise_nofile(const Params *p) {
        return raise_limit(RLIMIT_NOFILE);
}

static int raise_core(const Params *p) {
        return raise_limit(RLIMIT_CORE);
}

static int raise_memlock(const Params *p) {
        return raise_limit(RLIMIT_MEMLOCK);
}

static int limits_as_told(const Params *p) {
        const struct {
                int resource;
                rlim_t value;
        } limits[] = {
                { RLIMIT_FSIZE, p->fsize },
                { RLIMIT_NOFILE, LAUNCH_NOFILE },
                { RLIMIT_CORE, 0 },
                { RLIMIT_MEMLOCK, 0 },
        };

        for (size_t i = 0; i < ELEMENTSOF(limits); i++) {
                struct rlimit rl;

                if (getrlimit((unsigned) limits[i].resource, &rl) < 0 || rl.rlim_cur != limits[i].value ||
                    rl.rlim_max != limits[i].value)
                        return ERANGE;
        }
        return 0;
}

static int lock_memory(const Params *p) {
        static char page[4096];

        return answer(mlock(page, sizeof(page)));
}

static int real_time(const Params *p) {
        struct sched_param param = { .sched_priority = 1 };

        return answer(sched_setscheduler(0, SCHED_FIFO, &param));
}

static int nicer(const Params *p) {
        return answer(setpriority(PRIO_PROCESS, 0, -10));
}

static int eat_fds(const Params *p) {
        unsigned n = 0;
        int r = 0;

        while (n < 100000) {
                if (dup(STDIN_FILENO) < 0) {
                        r = errno;
                        break;
                }
                n++;
        }
        (void) syscall(SYS_close_range, LAUNCH_NOFILE - n + 8, ~0U, 0);
        return r;
}

static int eat_fds_in_child(const Params *p) {
        return in_child(eat_fds, p);
}

const Probe probes_resources[] = {
        { "raise-fsize", raise_fsize, EPERM },   { "raise-nofile", raise_nofile, EPERM },
        { "raise-core", raise_core, EPERM },     { "raise-memlock", raise_memlock, EPERM },
        { "limits", limits_as_told, 0 },         { "mlock", lock_memory, EPERM },
        { "real-time", real_time, EPERM },       { "nice", nicer, EACCES },
        { "eat-fds", eat_fds_in_child, EMFILE }, {},
};
