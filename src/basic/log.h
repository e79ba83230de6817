/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Logging for all programs. A line goes to the journal's native socket when stderr is connected to it
 * (sd-daemon(3), JOURNAL_STREAM), else to stderr with a "<N>" priority prefix when $INVOCATION_ID is set,
 * else plain. Never blocks: a line the journal cannot take at once is dropped and counted.
 * Level: $WRENN_LOG_LEVEL or $SYSTEMD_LOG_LEVEL (name or number), default info.
 */

#include <errno.h>
#include <syslog.h>

#include "basic/macro.h"

/* Reads the environment. name: the program's name, borrowed for the life of the process. */
void log_open(const char *name);
void log_set_level(int level);
int log_get_level(void);
uint64_t log_dropped(void);

/* Name ("debug", "warning"…) or number to level; -EINVAL. */
int log_level_from_string(const char *s);
const char* log_level_to_string(int level);

/*
 * Writes one line. error: 0 or errno of either sign, for %m. fields: NULL-terminated array of "NAME=value"
 * journal fields, or NULL. Returns -abs(error), so that "return log_error_errno(r, …)" works.
 */
int log_full(int level, int error, const char *const *fields, const char *file, int line, const char *func,
             const char *format, ...) _printf_(7, 8);

#define log_internal_(level, error, fields, ...)                                                           \
        ((level) <= log_get_level()                                                                        \
                         ? log_full((level), (error), (fields), __FILE__, __LINE__, __func__, __VA_ARGS__) \
                         : -abs(error))

#define log_debug(...)            ((void) log_internal_(LOG_DEBUG, 0, NULL, __VA_ARGS__))
#define log_info(...)             ((void) log_internal_(LOG_INFO, 0, NULL, __VA_ARGS__))
#define log_notice(...)           ((void) log_internal_(LOG_NOTICE, 0, NULL, __VA_ARGS__))
#define log_warning(...)          ((void) log_internal_(LOG_WARNING, 0, NULL, __VA_ARGS__))
#define log_error(...)            ((void) log_internal_(LOG_ERR, 0, NULL, __VA_ARGS__))
#define log_debug_errno(e, ...)   log_internal_(LOG_DEBUG, (e), NULL, __VA_ARGS__)
#define log_info_errno(e, ...)    log_internal_(LOG_INFO, (e), NULL, __VA_ARGS__)
#define log_warning_errno(e, ...) log_internal_(LOG_WARNING, (e), NULL, __VA_ARGS__)
#define log_error_errno(e, ...)   log_internal_(LOG_ERR, (e), NULL, __VA_ARGS__)

/* With WRENN_CAPSULE_ID= as a field, and the id before the text. id: NULL is allowed. */
#define log_capsule(id, level, error, ...) \
        log_capsule_full((id), (level), (error), __FILE__, __LINE__, __func__, __VA_ARGS__)
int log_capsule_full(const char *id, int level, int error, const char *file, int line, const char *func,
                     const char *format, ...) _printf_(7, 8);
