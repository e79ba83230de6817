/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * http-pairs PORT-A REQUEST-A PORT-B REQUEST-B N: sends both requests in turns over two kept connections to
 * 127.0.0.1 and prints a line "microseconds-a microseconds-b" for each of N pairs. A REQUEST is a file with
 * the bytes to send.
 */

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "basic/fd.h"
#include "basic/files.h"

typedef struct Side {
        int fd;
        char *request;
        size_t n_request;
} Side;

static int side_open(Side *s, const char *port, const char *file) {
        struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        int one = 1;

        a.sin_port = htons((uint16_t) atoi(port));
        s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (s->fd < 0 || connect(s->fd, (struct sockaddr *) &a, sizeof(a)) < 0)
                return -errno;
        (void) setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        return read_file_at(AT_FDCWD, file, 65536, &s->request, &s->n_request);
}

/* Sends the request and reads the answer to its end; -EPROTO unless it has a Content-Length. */
static int side_ask(Side *s, uint64_t *ret_usec) {
        char buffer[65536];
        size_t n = 0, need = SIZE_MAX;
        uint64_t begin = now_usec(CLOCK_MONOTONIC);

        if (write_all(s->fd, s->request, s->n_request) < 0)
                return -EIO;
        while (n < need) {
                ssize_t k = read(s->fd, buffer + n, sizeof(buffer) - 1 - n);
                const char *head, *length;

                if (k <= 0)
                        return -ECONNRESET;
                n += (size_t) k;
                buffer[n] = '\0';
                if (need != SIZE_MAX || !(head = strstr(buffer, "\r\n\r\n")))
                        continue;
                length = strstr(buffer, "Content-Length: ");
                if (!length || strncmp(buffer, "HTTP/1.1 200", 12) != 0)
                        return -EPROTO;
                need = (size_t) (head + 4 - buffer) + (size_t) atol(length + strlen("Content-Length: "));
        }
        *ret_usec = now_usec(CLOCK_MONOTONIC) - begin;
        return 0;
}

int main(int argc, char *argv[]) {
        Side a, b;

        if (argc != 6 || side_open(&a, argv[1], argv[2]) < 0 || side_open(&b, argv[3], argv[4]) < 0) {
                fprintf(stderr, "usage: http-pairs PORT-A REQUEST-A PORT-B REQUEST-B N\n");
                return EXIT_FAILURE;
        }

        for (int i = -200; i < atoi(argv[5]); i++) {
                uint64_t x, y;

                if (side_ask(&a, &x) < 0 || side_ask(&b, &y) < 0) {
                        fprintf(stderr, "A request failed.\n");
                        return EXIT_FAILURE;
                }
                if (i >= 0) /* the first ones warm up */
                        printf("%llu %llu\n", (unsigned long long) x, (unsigned long long) y);
        }
        return EXIT_SUCCESS;
}
