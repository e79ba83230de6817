/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Unit tests: a file of TEST(name) { … } blocks, run in order by test-main.c, TAP on stdout. A test that
 * cannot run here calls skip(). File descriptors left open fail the run.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "basic/macro.h"

void test_register(const char *name, void (*function)(void **state));

#define TEST(name)                                                            \
        static void test_##name(void **state);                                \
        __attribute__((constructor)) static void test_register_##name(void) { \
                test_register(#name, test_##name);                            \
        }                                                                     \
        static void test_##name(_unused_ void **state)

#define ASSERT_TRUE(x)                               \
        do {                                         \
                if (!(x))                            \
                        fail_msg("%s is false", #x); \
        } while (0)
#define ASSERT_FALSE(x)                             \
        do {                                        \
                if (x)                              \
                        fail_msg("%s is true", #x); \
        } while (0)
#define ASSERT_NULL(x)                                  \
        do {                                            \
                if (x)                                  \
                        fail_msg("%s is not NULL", #x); \
        } while (0)
#define ASSERT_NOT_NULL(x)                          \
        do {                                        \
                if (!(x))                           \
                        fail_msg("%s is NULL", #x); \
        } while (0)

/* Integers of any type: what is, what was expected. */
#define ASSERT_EQ(x, y)                                                  \
        do {                                                             \
                intmax_t x_ = (intmax_t) (x), y_ = (intmax_t) (y);       \
                if (x_ != y_)                                            \
                        fail_msg("%s is %jd, expected %jd", #x, x_, y_); \
        } while (0)

#define ASSERT_PTR(x, y)                                      \
        do {                                                  \
                if ((const void *) (x) != (const void *) (y)) \
                        fail_msg("%s is not %s", #x, #y);     \
        } while (0)

/* 0 or more */
#define ASSERT_OK(x)                                                            \
        do {                                                                    \
                intmax_t x_ = (intmax_t) (x);                                   \
                if (x_ < 0)                                                     \
                        fail_msg("%s is %jd: %s", #x, x_, strerror((int) -x_)); \
        } while (0)

/* NULL equals NULL only. */
#define ASSERT_STREQ(x, y)                                                                                 \
        do {                                                                                               \
                const char *x_ = (x), *y_ = (y);                                                           \
                if (x_ != y_ && (!x_ || !y_ || strcmp(x_, y_) != 0))                                       \
                        fail_msg("%s is '%s', expected '%s'", #x, x_ ? x_ : "(null)", y_ ? y_ : "(null)"); \
        } while (0)

/* A Fault with this code and text. */
#define ASSERT_FAULT(fault, expected_code, expected_message)       \
        do {                                                       \
                ASSERT_EQ((fault).code, (expected_code));          \
                ASSERT_STREQ((fault).message, (expected_message)); \
        } while (0)
