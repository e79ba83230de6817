/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The few language helpers every file uses: cleanup attributes, ownership transfer, sizes and units. */

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

#define _cleanup_(f)    __attribute__((cleanup(f)))
#define _printf_(a, b)  __attribute__((format(printf, a, b)))
#define _unused_        __attribute__((unused))
#define _public_        __attribute__((visibility("default")))
#define ELEMENTSOF(a)   (sizeof(a) / sizeof((a)[0]))
#define CONST_MAX(a, b) ((a) > (b) ? (a) : (b))
#define MIN(a, b)                   \
        ({                          \
                typeof(a) a_ = (a); \
                typeof(b) b_ = (b); \
                a_ < b_ ? a_ : b_;  \
        })
#define MAX(a, b)                   \
        ({                          \
                typeof(a) a_ = (a); \
                typeof(b) b_ = (b); \
                a_ > b_ ? a_ : b_;  \
        })
#define STRINGIFY_(x)         #x
#define STRINGIFY(x)          STRINGIFY_(x)
#define container_of(p, t, m) ((t *) (((char *) (p)) - offsetof(t, m)))

#define TAKE_PTR(p)                     \
        ({                              \
                typeof(p) taken_ = (p); \
                (p) = NULL;             \
                taken_;                 \
        })
#define TAKE_FD(fd)                \
        ({                         \
                int taken_ = (fd); \
                (fd) = -EBADF;     \
                taken_;            \
        })

/* Defines func##p() for _cleanup_(); func takes and returns a pointer, NULL is fine. */
#define DEFINE_CLEANUP(type, func)             \
        static inline void func##p(type **p) { \
                if (*p)                        \
                        (void) func(*p);       \
        }

/* The same for functions that return nothing. */
#define DEFINE_CLEANUP_VOID(type, func)        \
        static inline void func##p(type **p) { \
                if (*p)                        \
                        func(*p);              \
        }

static inline void freep(void *p) {
        free(*(void **) p);
}

#define _cleanup_free_ _cleanup_(freep)

#define USEC_PER_SEC  UINT64_C(1000000)
#define USEC_PER_MSEC UINT64_C(1000)
#define NSEC_PER_USEC UINT64_C(1000)
#define USEC_INFINITY UINT64_MAX
#define KIB           UINT64_C(1024)
#define MIB           (KIB * 1024)
#define GIB           (MIB * 1024)
