/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "basic/ini.h"
#include "basic/strings.h"

#define BLANKS " \t\r"

/* Cuts blanks at both ends, in place. */
static char* strip(char *s) {
        size_t n;

        s += strspn(s, BLANKS);
        for (n = strlen(s); n > 0 && strchr(BLANKS, s[n - 1]); n--)
                ;
        s[n] = '\0';
        return s;
}

int ini_next(char **text, IniLine *line) {
        if (!line->section)
                line->section = "";

        for (char *s; (s = strsep(text, "\n"));) {
                char *equals;

                line->number++;
                s = strip(s);
                if (*s == '\0' || *s == '#' || *s == ';')
                        continue;
                if (*s == '[' && endswith(s, "]")) {
                        s[strlen(s) - 1] = '\0';
                        line->section = s + 1;
                        continue;
                }

                equals = strchr(s, '=');
                if (!equals)
                        return -EBADMSG;
                *equals = '\0';
                line->name = strip(s);
                line->value = strip(equals + 1);
                return 1;
        }
        return 0;
}

const IniKey* ini_find(const IniKey *keys, size_t n_keys, const IniLine *line, bool *ret_section_known) {
        bool section_known = false;
        const IniKey *found = NULL;

        for (size_t i = 0; i < n_keys && !found; i++)
                if (streq(keys[i].section, line->section)) {
                        section_known = true;
                        if (streq(keys[i].name, line->name))
                                found = keys + i;
                }
        if (ret_section_known)
                *ret_section_known = section_known;
        return found;
}

int ini_parse_u32(const IniKey *k, const char *value, void *field) {
        uint32_t v;
        int r;

        r = parse_u32(value, &v);
        if (r < 0)
                return r;
        if (v < k->min || v > k->max)
                return -ERANGE;
        *(uint32_t *) field = v;
        return 0;
}

int ini_parse_size(const IniKey *k, const char *value, void *field) {
        uint64_t v;
        int r;

        r = parse_size(value, &v);
        if (r < 0)
                return r;
        if (v < k->min || v > k->max)
                return -ERANGE;
        *(uint64_t *) field = v;
        return 0;
}
