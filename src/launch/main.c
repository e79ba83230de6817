/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Arguments to plan, plan to steps. The order of the table is the order of the jail (docs/PROTOCOLS.md §1);
 * each row has an exit status of its own, so that wrennd can say what failed without reading the text.
 */

#include <getopt.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "launch/launch.h"

enum {
        EXIT_USAGE = 2,
        EXIT_STEP_FIRST = 64, /* plus the index of the step */
};

static const struct {
        const char *name;
        int (*run)(Plan *p);
} steps[] = {
        { "wait", step_wait },
        { "fds", step_fds },
        { "session", step_session },
        { "network", step_network },
        { "namespaces", step_namespaces },
        { "root", step_root },
        { "limits", step_limits },
        { "capabilities", step_capabilities },
        { "identity", step_identity },
        { "no-new-privileges", step_no_new_privileges },
        { "memory", step_memory },
        { "filter", step_filter },
        { "exec", step_exec },
};

int launch_error(int error, const char *format, ...) {
        char line[1024];
        va_list ap;
        int n;

        va_start(ap, format);
        n = vsnprintf(line, sizeof(line), format, ap);
        va_end(ap);
        if (n < 0)
                return -EINVAL;

        error = abs(error);
        if (error != 0)
                (void) dprintf(STDERR_FILENO, "wrenn-launch: %s: %s\n", line, strerror(error));
        else
                (void) dprintf(STDERR_FILENO, "wrenn-launch: %s\n", line);
        return error != 0 ? -error : -EINVAL;
}

static int parse_number(const char *option, const char *s, uint64_t max, uint64_t *ret) {
        unsigned long long v;
        char *end;

        if (*s < '0' || *s > '9')
                return launch_error(0, "--%s: expected a number, not '%s'", option, s);
        errno = 0;
        v = strtoull(s, &end, 10);
        if (errno != 0 || *end || v > max)
                return launch_error(0, "--%s: expected a number up to %llu, not '%s'", option,
                                    (unsigned long long) max, s);
        *ret = v;
        return 0;
}

static int parse_keep_fds(Plan *p, const char *s) {
        for (;;) {
                char one[16];
                size_t n = strcspn(s, ",");
                uint64_t v;
                int r;

                if (n >= sizeof(one) || p->n_keep_fds >= LAUNCH_FDS_MAX)
                        return launch_error(0, "--keep-fd: too many or too long: '%s'", s);
                memcpy(one, s, n);
                one[n] = 0;
                r = parse_number("keep-fd", one, INT_MAX, &v);
                if (r < 0)
                        return r;
                p->keep_fds[p->n_keep_fds++] = (int) v;
                if (!s[n])
                        return 0;
                s += n + 1;
        }
}

/* Absolute, no empty, "." or ".." component, no trailing slash. */
static bool jail_path_is_valid(const char *s) {
        if (*s != '/' || strlen(s) >= PATH_MAX)
                return false;
        while (*s == '/') {
                size_t n = strcspn(++s, "/");

                if (n == 0 || n > NAME_MAX || (n == 1 && s[0] == '.') ||
                    (n == 2 && s[0] == '.' && s[1] == '.'))
                        return false;
                s += n;
        }
        return true;
}

static int add_bind(Plan *p, const Bind *b) {
        if (p->n_binds >= LAUNCH_BINDS_MAX)
                return launch_error(0, "more than %u files to bind", LAUNCH_BINDS_MAX);
        if (*b->host != '/' || !jail_path_is_valid(b->jail))
                return launch_error(0, "cannot bind '%s' at '%s': not plain absolute paths", b->host,
                                    b->jail);
        p->binds[p->n_binds++] = *b;
        return 0;
}

/* Splits at the last ':' in place. */
static int parse_bind(Plan *p, const char *option, char *s, bool read_only) {
        char *colon = strrchr(s, ':');

        if (!colon)
                return launch_error(0, "--%s: expected HOST:JAIL, not '%s'", option, s);
        *colon = 0;
        return add_bind(p, &(Bind) { .host = s, .jail = colon + 1, .read_only = read_only });
}

static int parse_device(Plan *p, const char *s) {
        static const struct {
                const char *name, *path;
        } devices[] = {
                { "null", "/dev/null" },
                { "kvm", "/dev/kvm" },
        };

        for (size_t i = 0; i < ELEMENTSOF(devices); i++)
                if (strcmp(devices[i].name, s) == 0)
                        return add_bind(p, &(Bind) { .host = devices[i].path,
                                                     .jail = devices[i].path,
                                                     .device = true });
        return launch_error(0, "--dev: unknown device '%s'", s);
}

static int parse_userns(Plan *p, char *s) {
        uint64_t first, count;
        char *colon = strchr(s, ':');
        int r;

        if (!colon)
                return launch_error(0, "--userns: expected HOSTUID:COUNT, not '%s'", s);
        *colon = 0;
        r = parse_number("userns", s, UINT32_MAX, &first);
        if (r < 0)
                return r;
        r = parse_number("userns", colon + 1, UINT32_MAX, &count);
        if (r < 0)
                return r;
        if (first == 0 || count == 0 || first + count > UINT32_MAX)
                return launch_error(0,
                                    "--userns: the range may not hold root, be empty or end beyond 2^32-2");
        p->userns_first = (uid_t) first;
        p->userns_count = (uid_t) count;
        return 0;
}

enum {
        ARG_WAIT_FD = 256,
        ARG_NETNS_FD,
        ARG_UID,
        ARG_GID,
        ARG_KEEP_FD,
        ARG_FSIZE,
        ARG_MEMORY_LOCK,
        ARG_BIND_RO,
        ARG_BIND,
        ARG_DEV,
        ARG_USERNS,
        ARG_VERSION,
};

static const struct option options[] = {
        { "wait-fd", required_argument, NULL, ARG_WAIT_FD },
        { "netns-fd", required_argument, NULL, ARG_NETNS_FD },
        { "uid", required_argument, NULL, ARG_UID },
        { "gid", required_argument, NULL, ARG_GID },
        { "keep-fd", required_argument, NULL, ARG_KEEP_FD },
        { "fsize", required_argument, NULL, ARG_FSIZE },
        { "memory-lock", required_argument, NULL, ARG_MEMORY_LOCK },
        { "bind-ro", required_argument, NULL, ARG_BIND_RO },
        { "bind", required_argument, NULL, ARG_BIND },
        { "dev", required_argument, NULL, ARG_DEV },
        { "userns", required_argument, NULL, ARG_USERNS },
        { "version", no_argument, NULL, ARG_VERSION },
        {},
};

static int parse_option(Plan *p, int c, const char *name, char *value) {
        uint64_t v;
        int r;

        switch (c) {
        case ARG_WAIT_FD:
        case ARG_NETNS_FD:
                r = parse_number(name, value, INT_MAX, &v);
                if (r >= 0)
                        *(c == ARG_WAIT_FD ? &p->wait_fd : &p->netns_fd) = (int) v;
                return r;
        case ARG_UID:
        case ARG_GID:
                r = parse_number(name, value, UINT32_MAX - 1, &v);
                if (r >= 0)
                        *(c == ARG_UID ? &p->uid : &p->gid) = (uid_t) v;
                return r;
        case ARG_FSIZE:
                return parse_number(name, value, INT64_MAX, &p->fsize_bytes);
        case ARG_MEMORY_LOCK:
                return parse_number(name, value, INT64_MAX, &p->memory_lock_bytes);
        case ARG_KEEP_FD:
                return parse_keep_fds(p, value);
        case ARG_BIND_RO:
        case ARG_BIND:
                return parse_bind(p, name, value, c == ARG_BIND_RO);
        case ARG_DEV:
                return parse_device(p, value);
        case ARG_USERNS:
                return parse_userns(p, value);
        default:
                return launch_error(0, "unknown or incomplete option");
        }
}

static int parse_argv(Plan *p, int argc, char **argv) {
        opterr = 0;
        for (;;) {
                int index = 0, c = getopt_long(argc, argv, "+", options, &index), r;

                if (c < 0)
                        break;
                if (c == ARG_VERSION) {
                        puts("wrenn-launch " WRENN_VERSION);
                        return 1;
                }
                r = parse_option(p, c, options[index].name, optarg);
                if (r < 0)
                        return r;
        }

        p->argv = argv + optind;
        if (!p->argv[0])
                return launch_error(0, "no program given");
        if (p->userns_first == 0 && (p->uid == 0 || p->gid == 0))
                return launch_error(0, "--uid and --gid must be given and not be 0");
        return 0;
}

#ifdef LAUNCH_MUTANT
/* The test of the tests: a launcher without one of its steps must make a probe of tests/security fail. */
static bool step_is_skipped(const char *name) {
        const char *s = getenv("WRENN_LAUNCH_SKIP");

        return s && strcmp(s, name) == 0;
}
#else
static bool step_is_skipped(const char *name) {
        return false;
}
#endif

int main(int argc, char **argv) {
        static Plan plan = { .wait_fd = -EBADF, .netns_fd = -EBADF, .root_fd = -EBADF };
        int r;

        r = parse_argv(&plan, argc, argv);
        if (r != 0)
                return r < 0 ? EXIT_USAGE : EXIT_SUCCESS;

        if (plan.userns_first != 0)
                return userns_run(&plan);

        for (size_t i = 0; i < ELEMENTSOF(steps); i++) {
                if (step_is_skipped(steps[i].name))
                        continue;
                r = steps[i].run(&plan);
                if (r > 0)
                        return EXIT_SUCCESS;
                if (r < 0)
                        return EXIT_STEP_FIRST + (int) i;
        }
        return EXIT_SUCCESS;
}
