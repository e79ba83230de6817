/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What the guest does by itself, without the service: the baselines of dataplane.py. Static, put into a
 * guest by it.
 *
 *   guest-baseline sink PORT BYTES      reads so many bytes from the virtio-serial port, then writes one
 *   guest-baseline source PORT BYTES    waits for one byte, then writes so many
 *   guest-baseline spawn COUNT PROGRAM  medians of starting and reaping a program, in microseconds
 *   guest-baseline echo COUNT           median time from a key typed at a terminal to its echo, in
 * microseconds
 */

#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BLOCK_BYTES 65536U

static char block[BLOCK_BYTES];

static int fail(const char *what) {
        perror(what);
        return EXIT_FAILURE;
}

static double now_usec(void) {
        struct timespec t;

        (void) clock_gettime(CLOCK_MONOTONIC, &t);
        return (double) t.tv_sec * 1e6 + (double) t.tv_nsec / 1e3;
}

static int compare(const void *a, const void *b) {
        double x = *(const double *) a, y = *(const double *) b;

        return (x > y) - (x < y);
}

static int print_median(double *values, size_t n) {
        qsort(values, n, sizeof(double), compare);
        printf("%.1f\n", values[n / 2]);
        return EXIT_SUCCESS;
}

static int sink(int fd, unsigned long long left) {
        while (left > 0) {
                ssize_t n = read(fd, block, left < BLOCK_BYTES ? (size_t) left : BLOCK_BYTES);

                if (n <= 0)
                        return fail("read");
                left -= (unsigned long long) n;
        }
        return write(fd, "k", 1) == 1 ? EXIT_SUCCESS : fail("write");
}

static int source(int fd, unsigned long long left) {
        if (read(fd, block, 1) != 1)
                return fail("read");

        while (left > 0) {
                ssize_t n = write(fd, block, left < BLOCK_BYTES ? (size_t) left : BLOCK_BYTES);

                if (n <= 0)
                        return fail("write");
                left -= (unsigned long long) n;
        }
        return EXIT_SUCCESS;
}

static int spawn(size_t count, char *program) {
        extern char **environ;
        char *argv[] = { program, (char *) "x", NULL };
        double *values = calloc(count, sizeof(double));

        for (size_t i = 0; values && i < count; i++) {
                double begin = now_usec();
                int status;
                pid_t pid;

                if (posix_spawn(&pid, program, NULL, NULL, argv, environ) != 0 ||
                    waitpid(pid, &status, 0) < 0)
                        return fail(program);
                values[i] = now_usec() - begin;
        }
        return values ? print_median(values, count) : fail("calloc");
}

static int echo(size_t count) {
        double *values = calloc(count, sizeof(double));
        int master = posix_openpt(O_RDWR | O_NOCTTY), slave;

        if (!values || master < 0 || grantpt(master) < 0 || unlockpt(master) < 0)
                return fail("posix_openpt");
        slave = open(ptsname(master), O_RDWR | O_NOCTTY);
        if (slave < 0)
                return fail("open");

        for (size_t i = 0; i < count; i++) {
                double begin = now_usec();

                if (write(master, "x", 1) != 1 || read(master, block, 1) != 1)
                        return fail("echo");
                values[i] = now_usec() - begin;
                if (i % 64 == 63 && (write(master, "\n", 1) != 1 || read(master, block, 2) != 2))
                        return fail("newline");
        }
        return print_median(values, count);
}

int main(int argc, char **argv) {
        if (argc == 4 && (strcmp(argv[1], "sink") == 0 || strcmp(argv[1], "source") == 0)) {
                int fd = open(argv[2], O_RDWR | O_CLOEXEC);

                if (fd < 0)
                        return fail(argv[2]);
                return (argv[1][1] == 'i' ? sink : source)(fd, strtoull(argv[3], NULL, 10));
        }
        if (argc == 4 && strcmp(argv[1], "spawn") == 0)
                return spawn(strtoul(argv[2], NULL, 10), argv[3]);
        if (argc == 3 && strcmp(argv[1], "echo") == 0)
                return echo(strtoul(argv[2], NULL, 10));
        fprintf(stderr, "guest-baseline sink|source PORT BYTES | spawn COUNT PROGRAM | echo COUNT\n");
        return 2;
}
