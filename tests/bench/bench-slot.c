/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What a network slot costs, beside the same made by ip and nft (performance.md M13). In a network and mount
 * namespace of its own; TAP, one line a figure, "not ok" where a bound is missed. Baseline and ours
 * alternate in blocks, the median of each counts.
 *
 *     bench-slot [SLOTS]
 */

#include <fcntl.h>
#include <sched.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "daemon/host/slot.h"

#define SLOTS_DEFAULT 200U
#define SLOTS_MAX     1000U
#define PAIRS         20U /* of baseline and ours */
#define BLOCK         5U  /* made one after the other, as a pool is filled */
#define BUILD_RATIO   (1.0 / 15)
#define CLAIM_USEC    50.0
#define GROWTH        1.3

extern char **environ;

typedef struct Bench {
        sd_event *event;
        SlotPool *pool;
        Slot *slots[SLOTS_MAX + PAIRS];
        char *rules; /* of a slot, as nft prints them */
        unsigned n_tests, n_failed;
} Bench;

static int compare(const void *a, const void *b) {
        double x = *(const double *) a, y = *(const double *) b;

        return x < y ? -1 : x > y;
}

static double median(double *values, size_t n) {
        qsort(values, n, sizeof(double), compare);
        return values[n / 2];
}

static void report(Bench *b, bool good, const char *text) {
        b->n_failed += !good;
        printf("%s %u - %s\n", good ? "ok" : "not ok", ++b->n_tests, text);
        fflush(stdout);
}

static int run(char *const argv[]) {
        pid_t pid;
        int r, status;

        r = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);
        if (r != 0)
                return -r;
        if (waitpid(pid, &status, 0) < 0)
                return -errno;
        return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -ECHILD;
}

/* The script an administrator would write: the same links, addresses, settings and rules. */
static int baseline_build(unsigned n) {
        static const char script[] =
                        "set -e; n=$1; s=base$n\n"
                        "ip netns add $s\n"
                        "ip link add bv-$n type veth peer name up0 netns $s\n"
                        "ip netns exec $s ip tuntap add tap0 mode tap vnet_hdr\n"
                        "ip -n $s addr add 169.254.0.22/30 dev tap0\n"
                        "ip -n $s link set tap0 address 06:00:00:00:00:01 addrgenmode none\n"
                        "ip -n $s addr add 10.12.0.1/31 dev up0\n"
                        "ip -n $s link set lo up; ip -n $s link set tap0 up; ip -n $s link set up0 up\n"
                        "ip addr add 10.12.0.0/31 dev bv-$n\n"
                        "ip link set bv-$n up\n"
                        "ip -n $s route add default via 10.12.0.0\n"
                        "ip netns exec $s sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=1\n"
                        "ip netns exec $s nft -f /run/netns/.rules\n";
        char number[16];

        (void) snprintf(number, sizeof(number), "%u", n);
        return run((char *[]) { "sh", "-c", (char *) script, "sh", number, NULL });
}

static int baseline_remove(unsigned n) {
        char name[32];

        (void) snprintf(name, sizeof(name), "base%u", n);
        return run((char *[]) { "ip", "netns", "del", name, NULL });
}

/* One slot's rules become the file that the baseline loads. */
static int write_rules(Slot *s) {
        char command[128];

        (void) snprintf(command, sizeof(command),
                        "nsenter --net=/proc/%i/fd/%i nft list ruleset >/run/netns/.rules", getpid(),
                        slot_netns_fd(s));
        return run((char *[]) { "sh", "-c", command, NULL });
}

static int claim_timed(Bench *b, Slot **ret, double *ret_usec) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        uint64_t begin = now_usec(CLOCK_MONOTONIC);
        int r;

        r = slot_pool_claim(b->pool, ret, &fault);
        *ret_usec = (double) (now_usec(CLOCK_MONOTONIC) - begin);
        return r < 0 ? log_error_errno(r, "Failed to make a slot: %s", strempty(fault.message)) : 0;
}

static int bench_build(Bench *b) {
        double ours[PAIRS], theirs[PAIRS], build, script;
        char text[256];
        int r;

        for (unsigned i = 0; i < PAIRS; i++) {
                r = claim_timed(b, &b->slots[SLOTS_MAX + i], &ours[i]);
                if (r < 0)
                        return r;
                if (i == 0 && (r = write_rules(b->slots[SLOTS_MAX])) < 0)
                        return r;
                if (i % BLOCK != BLOCK - 1)
                        continue;

                for (unsigned j = i + 1 - BLOCK; j <= i; j++) {
                        uint64_t begin = now_usec(CLOCK_MONOTONIC);

                        r = baseline_build(j);
                        theirs[j] = (double) (now_usec(CLOCK_MONOTONIC) - begin);
                        if (r < 0)
                                return r;
                }
        }
        for (unsigned i = 0; i < PAIRS; i++)
                if ((r = baseline_remove(i)) < 0)
                        return r;

        build = median(ours, PAIRS);
        script = median(theirs, PAIRS);
        (void) snprintf(text, sizeof(text),
                        "build of a slot %.2f ms, with ip and nft %.2f ms: ratio %.4f (at most %.4f)",
                        build / 1000, script / 1000, build / script, BUILD_RATIO);
        report(b, build / script <= BUILD_RATIO, text);
        return 0;
}

/* Builds n slots; the first ten against the last ten. */
static int bench_growth(Bench *b, unsigned n) {
        double usec[SLOTS_MAX], first, last;
        char text[256];
        int r;

        for (unsigned i = 0; i < n; i++) {
                r = claim_timed(b, &b->slots[i], &usec[i]);
                if (r < 0)
                        return r;
        }

        first = median(usec, 10);
        last = median(usec + n - 10, 10);
        (void) snprintf(text, sizeof(text),
                        "slots 1-10 %.2f ms each, slots %u-%u %.2f ms each: growth %.2f (at most %.1f)",
                        first / 1000, n - 9, n, last / 1000, last / first, GROWTH);
        report(b, last / first <= GROWTH, text);
        return 0;
}

/* Nobody took the taps of n slots: released they are ready, and claimed again. */
static int bench_claim(Bench *b, unsigned n) {
        double claims[SLOTS_MAX], releases[SLOTS_MAX], claim;
        char text[256];
        int r;

        for (unsigned i = 0; i < n; i++) {
                uint64_t begin = now_usec(CLOCK_MONOTONIC);

                b->slots[i] = slot_release(b->slots[i]);
                releases[i] = (double) (now_usec(CLOCK_MONOTONIC) - begin);
        }
        for (unsigned i = 0; i < n; i++) {
                r = claim_timed(b, &b->slots[i], &claims[i]);
                if (r < 0)
                        return r;
        }

        claim = median(claims, n);
        (void) snprintf(text, sizeof(text), "claim of a ready slot %.1f us, worst %.1f us (at most %.0f us)",
                        claim, claims[n - 1], CLAIM_USEC);
        report(b, claim <= CLAIM_USEC, text);
        (void) snprintf(text, sizeof(text), "release of an unused slot %.1f us", median(releases, n));
        report(b, true, text);
        return 0;
}

/* With the tap gone to a VMM: what the daemon itself pays at the end of a capsule. */
static void bench_end(Bench *b, unsigned n) {
        double releases[SLOTS_MAX], taps[SLOTS_MAX];
        char text[256];

        n = MIN(n, 20U);
        for (unsigned i = 0; i < n; i++) {
                int tap = slot_take_tap_fd(b->slots[i]);
                uint64_t begin = now_usec(CLOCK_MONOTONIC), middle;

                close_fd(tap);
                middle = now_usec(CLOCK_MONOTONIC);
                b->slots[i] = slot_release(b->slots[i]);
                taps[i] = (double) (middle - begin);
                releases[i] = (double) (now_usec(CLOCK_MONOTONIC) - middle);
        }

        (void) snprintf(text, sizeof(text),
                        "release of a used slot %.1f us; the VMM's close of the tap %.1f ms",
                        median(releases, n), median(taps, n) / 1000);
        report(b, true, text);
}

static void report_memory(Bench *b, unsigned n) {
        _cleanup_free_ char *status = NULL;
        char text[256];
        const char *line;

        if (read_file_at(AT_FDCWD, "/proc/self/status", 64 * KIB, &status, NULL) < 0)
                return;
        line = strstr(status, "RssAnon:");
        (void) snprintf(text, sizeof(text), "private memory with %u slots made: %.*s", n,
                        line ? (int) strcspn(line, "\n") : 0, strempty(line));
        report(b, true, text);
}

int main(int argc, char *argv[]) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        static Bench b;
        uint32_t n = SLOTS_DEFAULT;
        int r;

        log_open("bench-slot");
        if (argc > 1 && (parse_u32(argv[1], &n) < 0 || n < 20 || n > SLOTS_MAX))
                return 2;
        if (unshare(CLONE_NEWNET | CLONE_NEWNS) < 0 ||
            mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
                printf("1..0 # SKIP needs root\n");
                return 77;
        }
        (void) mkdir_parents("/run/netns", 0755);
        if (mount("tmpfs", "/run/netns", "tmpfs", 0, NULL) < 0)
                return EXIT_FAILURE;

        printf("1..6\n");
        r = sd_event_new(&b.event);
        if (r >= 0)
                r = slot_pool_new(b.event, &(SlotPoolConfig) {}, &b.pool, &fault);
        if (r < 0)
                return log_error_errno(r, "Failed to make the pool: %s", strempty(fault.message)),
                       EXIT_FAILURE;

        if ((r = bench_build(&b)) >= 0 && (r = bench_growth(&b, n)) >= 0 && (r = bench_claim(&b, n)) >= 0) {
                report_memory(&b, n + PAIRS);
                bench_end(&b, n);
        }

        for (size_t i = 0; i < ELEMENTSOF(b.slots); i++)
                b.slots[i] = slot_release(b.slots[i]);
        return r < 0 || b.n_failed > 0
                               ? EXIT_FAILURE
                               : EXIT_SUCCESS; /* the kernel ends the pool's slots faster than we would */
}
