(function () {
  'use strict';
  var root = document.documentElement, live = {};
  document.querySelectorAll('.screen[hidden]').forEach(function (element) { element.hidden = false; });

  // Charts name CSS variables, so a change of theme redraws nothing.
  var themes = ['auto', 'light', 'dark'], theme = 0, button = document.getElementById('theme');
  button.addEventListener('click', function () {
    theme = (theme + 1) % themes.length;
    if (theme) root.dataset.theme = themes[theme]; else delete root.dataset.theme;
    button.textContent = 'Theme: ' + themes[theme];
  });

  // Names and messages reach the tooltip as text only; Vega's own tooltip writes markup.
  var tip = document.createElement('div');
  tip.id = 'tip';
  tip.setAttribute('role', 'tooltip');
  document.body.appendChild(tip);
  function showTip(handler, event, item, value) {
    tip.textContent = '';
    tip.className = '';
    if (value === null || value === undefined || value === '') return;
    var table = document.createElement('table');
    Object.keys(value).forEach(function (key) {
      var shown = value[key];
      if (shown === null || shown === '' || /^(null|NaN%?)$/.test(shown)) return;
      var row = table.insertRow();
      row.insertCell().textContent = key;
      row.insertCell().textContent = shown;
    });
    tip.appendChild(table);
    tip.className = 'on';
    var right = event.clientX + 14, below = event.clientY + 14;
    if (right + tip.offsetWidth > innerWidth - 8) right = event.clientX - tip.offsetWidth - 14;
    if (below + tip.offsetHeight > innerHeight - 8) below = event.clientY - tip.offsetHeight - 14;
    tip.style.left = Math.max(4, right) + 'px';
    tip.style.top = Math.max(4, below) + 'px';
  }

  // The drawing stays until the live chart is ready, and stays if it fails.
  function enliven(host) {
    if (live[host.id]) return live[host.id];
    var spec = JSON.parse(document.getElementById(host.id + '-spec').textContent);
    var place = document.createElement('div');
    place.style.cssText = 'position:absolute;visibility:hidden';
    host.appendChild(place);
    live[host.id] = vegaEmbed(place, spec, {
      mode: 'vega', renderer: 'svg', actions: false, ast: true, defaultStyle: false, tooltip: showTip
    }).then(function () {
      host.querySelectorAll(':scope > svg').forEach(function (drawing) { drawing.remove(); });
      place.style.cssText = '';
    }, function (error) {
      place.remove();
      console.error(host.id, error);
    });
    return live[host.id];
  }
  var charts = Array.prototype.slice.call(document.querySelectorAll('.chart'));
  window.raybenchEnlivenAll = function () { return Promise.all(charts.map(enliven)); };
  if ('IntersectionObserver' in window) {
    var sight = new IntersectionObserver(function (entries) {
      entries.forEach(function (entry) {
        if (!entry.isIntersecting) return;
        sight.unobserve(entry.target);
        enliven(entry.target);
      });
    }, { rootMargin: '500px' });
    charts.forEach(function (host) { sight.observe(host); });
    var links = {};
    document.querySelectorAll('nav a').forEach(function (link) { links[link.hash.slice(1)] = link; });
    var reading = new IntersectionObserver(function (entries) {
      entries.forEach(function (entry) {
        if (links[entry.target.id]) links[entry.target.id].classList.toggle('on', entry.isIntersecting);
      });
    }, { rootMargin: '-20% 0px -70% 0px' });
    document.querySelectorAll('main section').forEach(function (section) { reading.observe(section); });
  } else {
    window.raybenchEnlivenAll();
  }

  function save(name, type, text) {
    var link = document.createElement('a'), url = URL.createObjectURL(new Blob([text], { type: type }));
    link.download = name;
    link.href = url;
    link.click();
    setTimeout(function () { URL.revokeObjectURL(url); }, 1000);
  }
  // A file of its own cannot ask the page for its variables.
  function saveSvg(id) {
    var style = getComputedStyle(root), svg = document.querySelector('#' + id + ' svg').cloneNode(true);
    var ground = document.createElementNS('http://www.w3.org/2000/svg', 'rect');
    ground.setAttribute('width', '100%');
    ground.setAttribute('height', '100%');
    ground.setAttribute('fill', style.getPropertyValue('--card').trim());
    svg.insertBefore(ground, svg.firstChild);
    var text = new XMLSerializer().serializeToString(svg).replace(/var\((--\w+)(?:,[^)]*)?\)/g, function (all, name) {
      return style.getPropertyValue(name).trim() || all;
    });
    save(id + '.svg', 'image/svg+xml', text);
  }
  document.addEventListener('click', function (event) {
    if (event.target.dataset.svg) saveSvg(event.target.dataset.svg);
    if (event.target.id === 'csv') save('trials.csv', 'text/csv', document.getElementById('trials').textContent);
  });
})();
