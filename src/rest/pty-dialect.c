/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "basic/hashmap.h"
#include "basic/limits.h"
#include "basic/strings.h"
#include "rest/pty-dialect.h"

static const char *const framing_names[_PTY_FRAMING_MAX] = {
        [PTY_FRAMING_NONE] = "",
        [PTY_FRAMING_JSON] = "json",
        [PTY_FRAMING_BINARY] = "binary",
};

const char* pty_framing_to_string(PtyFraming f) {
        return f >= 0 && f < _PTY_FRAMING_MAX ? framing_names[f] : NULL;
}

PtyFraming pty_framing_from_string(const char *s) {
        for (PtyFraming f = 0; f < _PTY_FRAMING_MAX; f++)
                if (streq_ptr(s, framing_names[f]))
                        return f;
        return _PTY_FRAMING_INVALID;
}

void pty_dialect_start(PtyDialect *d, PtyFraming tag, PtyFraming key, PtyFraming other) {
        PtyFraming known = tag > PTY_FRAMING_NONE ? tag : key;

        d->remembered = known > PTY_FRAMING_NONE;
        d->fallback = d->remembered ? known : other;
}

uint64_t pty_dialect_hold_usec(const PtyDialect *d) {
        if (d->framing != PTY_FRAMING_NONE)
                return 0;
        return d->remembered ? PTY_REMEMBERED_USEC : PTY_UNDECIDED_USEC;
}

bool pty_dialect_input(PtyDialect *d, PtyFraming framing) {
        bool news = d->shown != framing;

        d->shown = d->framing = framing;
        return news;
}

void pty_dialect_settle(PtyDialect *d) {
        if (d->framing == PTY_FRAMING_NONE)
                d->framing = d->fallback ?: PTY_FRAMING_BINARY;
}

/* Tags. */

typedef struct PtyTag {
        struct PtyTag *next, *previous; /* older, younger */
        PtyFraming framing;
        char name[]; /* "<capsule>/<tag>": no id holds a slash */
} PtyTag;

struct PtyTags {
        Hashmap *tags; /* name -> PtyTag */
        PtyTag *youngest, *oldest;
};

static void tag_unlink(PtyTags *t, PtyTag *p) {
        *(p->previous ? &p->previous->next : &t->youngest) = p->next;
        *(p->next ? &p->next->previous : &t->oldest) = p->previous;
        (void) hashmap_remove(t->tags, p->name);
}

PtyTags* pty_tags_new(void) {
        _cleanup_(pty_tags_freep) PtyTags *t = malloc(sizeof(PtyTags));

        if (!t)
                return NULL;
        *t = (PtyTags) { .tags = hashmap_new() };
        return t->tags ? TAKE_PTR(t) : NULL;
}

PtyTags* pty_tags_free(PtyTags *t) {
        if (!t)
                return NULL;
        for (PtyTag *p; (p = t->oldest);) {
                tag_unlink(t, p);
                free(p);
        }
        hashmap_free(t->tags);
        free(t);
        return NULL;
}

PtyFraming pty_tags_get(const PtyTags *t, const char *capsule, const char *tag) {
        _cleanup_free_ char *name = strjoin(capsule, "/", tag);
        const PtyTag *p = hashmap_get(t->tags, name);

        return p ? p->framing : PTY_FRAMING_NONE;
}

void pty_tags_put(PtyTags *t, const char *capsule, const char *tag, PtyFraming framing) {
        _cleanup_free_ char *name = strjoin(capsule, "/", tag);
        PtyTag *p = hashmap_get(t->tags, name);

        if (!name)
                return;
        if (p)
                tag_unlink(t, p);
        else if (hashmap_size(t->tags) >= PTY_TAGS_MAX) {
                PtyTag *oldest = t->oldest;

                tag_unlink(t, oldest);
                free(oldest);
        }
        if (!p) {
                p = malloc(sizeof(PtyTag) + strlen(name) + 1);
                if (!p)
                        return;
                strcpy(p->name, name);
        }

        if (hashmap_put(t->tags, p->name, p) < 0) {
                free(p);
                return;
        }
        p->framing = framing;
        p->previous = NULL;
        p->next = t->youngest;
        *(p->next ? &p->next->previous : &t->oldest) = p;
        t->youngest = p;
}
