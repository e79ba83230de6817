/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Files of "[Section]" and "Name=value" lines, '#' and ';' comments, as systemd.syntax(7) has them: a reader
 * of lines, and tables that say where a value goes. What an unknown key means is the caller's to decide.
 */

#include "basic/macro.h"

typedef struct IniLine {
        unsigned number;     /* 1 on; start with {} */
        const char *section; /* "" before the first; these three point into the text */
        const char *name, *value;
} IniLine;

typedef struct IniKey IniKey;
struct IniKey {
        const char *section, *name;
        int (*parse)(const IniKey *k, const char *value, void *field);
        size_t offset;
        uint64_t min, max;            /* of numbers; of lists: entries */
        bool (*valid)(const char *s); /* of texts and of the entries of lists */
        const char *expected;         /* for errors */
};

/*
 * The next assignment; cuts *text up and moves it on. 1: line is filled, 0: the end, -EBADMSG: line->number
 * is neither section, comment nor assignment, the next call goes on behind it.
 */
int ini_next(char **text, IniLine *line);

/* NULL: no such key. Whether anything has that section goes into *ret_section_known, which may be NULL. */
const IniKey* ini_find(const IniKey *keys, size_t n_keys, const IniLine *line, bool *ret_section_known);

/* uint32_t and bytes within min and max: -EINVAL, -ERANGE. */
int ini_parse_u32(const IniKey *k, const char *value, void *field);
int ini_parse_size(const IniKey *k, const char *value, void *field);
