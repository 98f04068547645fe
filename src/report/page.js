// What the page gains where scripts run: a choice of colours, sorted tables, copying, large pictures.
'use strict';
(() => {
  const page = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  page.classList.add('js');

  // Some browsers refuse storage to files and in private windows; the choice is then for this view.
  const remembered = (theme) => {
    try {
      if (theme) localStorage.setItem('attnkit-theme', theme);
      return localStorage.getItem('attnkit-theme');
    } catch {
      return null;
    }
  };
  const chosen = remembered();
  if (chosen === 'light' || chosen === 'dark') page.dataset.theme = chosen;

  const button = (text, act) => {
    const made = document.createElement('button');
    made.type = 'button';
    made.textContent = text;
    made.addEventListener('click', () => act(made));
    return made;
  };

  let status;
  const say = (text) => { status.textContent = text; };

  const copier = (label, text) => button(label, async (made) => {
    let outcome = 'Copied';
    try {
      await navigator.clipboard.writeText(text());
    } catch {
      outcome = 'Could not copy';
    }
    made.textContent = outcome;
    say(outcome);
    setTimeout(() => { made.textContent = label; }, 2000);
  });

  const offerThemes = () => {
    const system = matchMedia('(prefers-color-scheme: dark)');
    const isDark = () => (page.dataset.theme ? page.dataset.theme === 'dark' : system.matches);
    const made = button('', () => {
      page.dataset.theme = isDark() ? 'light' : 'dark';
      remembered(page.dataset.theme);
      label();
    });
    const label = () => { made.textContent = isDark() ? 'Light colours' : 'Dark colours'; };
    label();
    system.addEventListener?.('change', label);
    document.querySelector('.top').append(made);
  };

  // Numbers first, then text; what has no value to compare stays last, whichever way round.
  const collator = new Intl.Collator(undefined, { numeric: true });
  const keyOf = (cell) => {
    if ('last' in cell.dataset) return [2];
    return 'number' in cell.dataset ? [0, Number(cell.title || cell.textContent)] : [1, cell.textContent];
  };
  const compare = (a, b, sign) => {
    if (a[0] === 2 || b[0] === 2) return a[0] - b[0];
    return sign * (a[0] - b[0] || (a[0] ? collator.compare(a[1], b[1]) : a[1] - b[1]));
  };

  const offerSorting = (table) => {
    const body = table.tBodies[0];
    const given = [...body.rows];
    const headers = [...table.tHead.rows[0].cells];
    headers.forEach((header, column) => {
      const made = button('', () => {
        const order = { ascending: 'descending', descending: null }[header.getAttribute('aria-sort')];
        const next = order === undefined ? 'ascending' : order;
        headers.forEach((other) => other.removeAttribute('aria-sort'));
        let rows = given;
        if (next) {
          header.setAttribute('aria-sort', next);
          const sign = next === 'ascending' ? 1 : -1;
          const keyed = given.map((row) => [keyOf(row.cells[column]), row]);
          rows = keyed.sort((a, b) => compare(a[0], b[0], sign)).map((pair) => pair[1]);
        }
        body.append(...rows);
        say(next ? `Sorted by ${made.textContent}, ${next}` : 'In the order given');
      });
      made.append(...header.childNodes);
      made.title = header.title;
      header.removeAttribute('title');
      header.append(made);
    });
  };

  const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const csv = (table) => {
    const plain = (cell) => {
      if (cell.dataset.last === 'missing') return '';
      return 'number' in cell.dataset ? cell.title || cell.textContent : cell.textContent;
    };
    return [...table.rows].map((row) => [...row.cells].map((cell) => quoted(plain(cell))).join(',') + '\r\n').join('');
  };

  const equipTable = (figure) => {
    const table = figure.querySelector('table');
    const buttons = [];
    const count = table.tBodies[0].rows.length;
    offerSorting(table);
    if (table.classList.contains('first')) {
      const label = (isAll) => (isAll ? 'Show the first 15 rows' : `Show all ${count} rows`);
      const made = button(label(false), () => {
        const isAll = !table.classList.toggle('first');
        made.textContent = label(isAll);
        made.setAttribute('aria-expanded', isAll);
        if (!isAll) figure.scrollIntoView({ block: 'nearest' });
      });
      made.setAttribute('aria-expanded', false);
      buttons.push(made);
    }
    if (navigator.clipboard) buttons.push(copier('Copy as CSV', () => csv(table)));
    figure.querySelector('.tools').prepend(...buttons);
  };

  // The picture itself moves into the dialog and back: a copy would have its ids twice.
  const enlarge = (figure, opener) => {
    const picture = figure.querySelector('.picture');
    const shown = picture.firstElementChild;
    const dialog = document.createElement('dialog');
    const tools = document.createElement('div');
    const large = document.createElement('div');
    const caption = document.createElement('p');
    tools.className = 'tools';
    large.className = 'picture';
    caption.textContent = figure.querySelector('figcaption')?.textContent ?? '';
    dialog.setAttribute('aria-label', caption.textContent || 'Picture');
    tools.append(button('Close', () => dialog.close()));
    dialog.append(tools, large, caption);
    dialog.addEventListener('click', (event) => { if (event.target === dialog) dialog.close(); });
    dialog.addEventListener('close', () => {
      picture.append(shown);
      picture.style.height = '';
      dialog.remove();
      opener.focus();
    });
    picture.style.height = `${picture.offsetHeight}px`;
    shown.classList.toggle('small', shown.naturalWidth < innerWidth);
    large.append(shown);
    document.body.append(dialog);
    dialog.showModal();
    // A wide drawing is panned with the arrow keys, too.
    if (large.scrollWidth > large.clientWidth) {
      Object.assign(large, { tabIndex: 0, role: 'region', ariaLabel: 'Picture' });
    }
  };

  const equipPicture = (figure) => {
    const opener = button('Enlarge', () => enlarge(figure, opener));
    const name = figure.querySelector('figcaption')?.textContent;
    if (name) opener.setAttribute('aria-label', `Enlarge: ${name}`);
    figure.querySelector('.tools').prepend(opener);
    figure.querySelector('.picture').firstElementChild.addEventListener('click', () => {
      if (!document.querySelector('dialog')) opener.click();
    });
  };

  const followReader = () => {
    const links = new Map(all('.contents.wide a').map((link) => [link.hash.slice(1), link]));
    const sections = all('main > section');
    const mark = () => {
      const passed = sections.filter((section) => section.getBoundingClientRect().top < innerHeight / 3);
      const current = (passed.at(-1) ?? sections[0])?.id;
      links.forEach((link, id) => {
        if (decodeURIComponent(id) === current) link.setAttribute('aria-current', 'true');
        else link.removeAttribute('aria-current');
      });
    };
    let waits = false;
    const soon = () => {
      if (!waits) requestAnimationFrame(() => { waits = false; mark(); });
      waits = true;
    };
    addEventListener('scroll', soon, { passive: true });
    addEventListener('resize', soon);
    mark();
  };

  const printOpen = () => {
    let closed = [];
    addEventListener('beforeprint', () => {
      closed = all('main details:not([open])');
      closed.forEach((details) => { details.open = true; });
    });
    addEventListener('afterprint', () => closed.forEach((details) => { details.open = false; }));
  };

  document.addEventListener('DOMContentLoaded', () => {
    status = document.createElement('div');
    status.className = 'unseen';
    status.setAttribute('role', 'status');
    document.querySelector('main').append(status);
    offerThemes();
    all('.tabular').forEach(equipTable);
    if (window.HTMLDialogElement) all('.pictured').forEach(equipPicture);
    if (navigator.clipboard) {
      all('.command').forEach((details) => {
        const command = details.querySelector('code').textContent;
        details.append(copier('Copy', () => command));
      });
    }
    all('.contents.narrow a').forEach((link) => link.addEventListener('click', () => {
      link.closest('details').open = false;
    }));
    followReader();
    printOpen();
  });
})();
