/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "basic/strings.h"
#include "ctl/display.h"

int display_transform(void *userdata, char *data, size_t n, size_t *ret_n) {
        _cleanup_free_ char *text = NULL, *shown = NULL;
        size_t n_text = 0, n_complete;
        Display *d = userdata;

        text = malloc(sizeof(d->tail) + n);
        if (!text)
                return -ENOMEM;
        memcpy(text, d->tail, d->n_tail);
        n_text = d->n_tail;
        for (size_t i = 0; i < n; i++)
                if (data[i] != '\r')
                        text[n_text++] = data[i];

        n_complete = utf8_complete_prefix(text, n_text);
        d->n_tail = n_text - n_complete;
        assert(d->n_tail <= sizeof(d->tail));
        memcpy(d->tail, text + n_complete, d->n_tail);

        shown = escape_text_for_display(text, n_complete);
        if (!shown)
                return -ENOMEM;
        *ret_n = strlen(shown);
        memcpy(data, shown, *ret_n);
        return 0;
}
