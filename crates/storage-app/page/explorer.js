// Adds "Storage location" to the patients, studies and series of Orthanc Explorer.
(function() {
  // The tokens that Orthanc Explorer sends with each request, as parameters of an address.
  function tokens() {
    var headers = $.ajaxSettings.headers || {};
    return $.map(['token', 'auth-token', 'authorization'], function(name) {
      return headers[name] ? '&' + name + '=' + encodeURIComponent(headers[name]) : null;
    }).join('');
  }

  function add(level) {
    var list = $('#' + level + '-access');
    if (list.length === 0) {
      list = $('#' + level + '-info');
    }
    if (list.length === 0 || $('#' + level + '-storage-location').length !== 0) {
      return;
    }
    var link = $('<a>')
      .attr('id', level + '-storage-location')
      .attr('href', '#')
      .text('Storage location')
      .click(function(e) {
        e.preventDefault();
        var id = ($.mobile.pageData || {}).uuid;
        if (id) {
          window.open('../object-storage/app/?' + level + '=' + encodeURIComponent(id) + tokens());
        }
      });
    list.append($('<li>').attr('data-icon', 'search').append(link));
  }

  if (typeof $ === 'undefined') {
    return;
  }
  $.each(['patient', 'study', 'series'], function(index, level) {
    var added = function() {
      try {
        add(level);
      } catch (error) {
        // Orthanc Explorer works without the link.
      }
    };
    // Before jQuery Mobile makes the page, so that it styles the link as the others.
    if ($.fn.live) {
      $('#' + level).live('pagebeforecreate', added);
    } else {
      $(document).on('pagebeforecreate', '#' + level, added);
    }
  });
})();
