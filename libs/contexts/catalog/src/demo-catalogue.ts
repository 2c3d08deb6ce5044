import type { NewProduct } from '@banyan/contracts';

/** A make of a thing: its finish or its kind, what that does to the price, and what to say of it. */
type Make = [name: string, priceFactor: number, about: string];
/** A thing: its name, its price in whole euros in the plainest make, and what it is for. */
type Thing = [name: string, euros: number, use: string];

interface Department {
  category: string;
  prefix: string;
  makes: Make[];
  things: Thing[];
  care: string;
}

const series = ['Alder', 'Brook', 'Cinder', 'Dune', 'Ember', 'Fjord', 'Grove', 'Harbour', 'Isle', 'Juniper', 'Kestrel'];

const departments: Department[] = [
  {
    category: 'Kitchen',
    prefix: 'KIT',
    makes: [
      ['Everyday', 1, 'Made to be used three times a day and put away wet-handed.'],
      ['Chef’s', 1.6, 'A size up and a weight up, for people who cook for ten.'],
      ['Matt Black', 1.2, 'The dark finish does not show scratches.'],
      ['Compact', 0.8, 'A smaller take on it, for one pan and one shelf.'],
      ['Heritage', 1.4, 'The shape comes from a grandmother’s kitchen.'],
    ],
    things: [
      ['Mixing Bowl', 18, 'Deep enough to whisk cream without decorating the wall.'],
      ['Serving Board', 24, 'Carries bread, cheese and a whole evening.'],
      ['Salad Servers', 15, 'Long handles reach the bottom of a big bowl.'],
      ['Spice Mill', 22, 'Grinds pepper, coriander and coarse salt.'],
      ['Casserole', 49, 'For stews that start at noon.'],
      ['Measuring Spoons', 11, 'Five sizes on one ring, down to a quarter of a teaspoon.'],
      ['Mortar', 27, 'Heavy enough to stay where it stands.'],
      ['Utensil Jar', 19, 'Keeps ladles and spatulas within reach of the stove.'],
    ],
    care: 'Wash by hand and dry at once.',
  },
  {
    category: 'Tableware',
    prefix: 'TAB',
    makes: [
      ['Speckled', 1, 'Fine iron spots come through the white glaze.'],
      ['Midnight Blue', 1.1, 'A deep blue that shows food at its best.'],
      ['Porcelain', 1.5, 'Thin, light, and stronger than it looks.'],
      ['Recycled Glass', 1.2, 'Small bubbles tell that it was a bottle before.'],
      ['Sand', 1, 'A warm, matt surface that is pleasant to hold.'],
    ],
    things: [
      ['Mug', 12, 'Holds a generous coffee, with room for milk.'],
      ['Dinner Plate', 16, 'A wide, flat centre and a low rim.'],
      ['Soup Bowl', 14, 'Deep, with a rim that keeps fingers cool.'],
      ['Espresso Cup', 9, 'Thick walls keep a small coffee hot.'],
      ['Water Jug', 29, 'Pours without a drip and fits a refrigerator door.'],
      ['Cake Stand', 34, 'Lifts a cake to where it belongs.'],
      ['Butter Dish', 21, 'Takes a whole block, with a lid that sits firmly.'],
      ['Egg Cup', 6, 'For the slow mornings of the week.'],
    ],
    care: 'Safe in the dishwasher and the microwave.',
  },
  {
    category: 'Lighting',
    prefix: 'LIG',
    makes: [
      ['Brass', 1.5, 'The brass is unlacquered and ages with you.'],
      ['Black', 1, 'Powder-coated, so that it does not show fingerprints.'],
      ['White', 1, 'Melts into a white wall until evening.'],
      ['Opal Glass', 1.3, 'Opal glass spreads light evenly, without glare.'],
      ['Copper', 1.4, 'Copper warms the light before it leaves the lamp.'],
    ],
    things: [
      ['Desk Lamp', 59, 'A joint at the base and one at the head put light where work is.'],
      ['Floor Lamp', 129, 'Stands behind an armchair and reads along.'],
      ['Pendant', 89, 'Hangs low over a table or high in a hall.'],
      ['Wall Light', 69, 'Frees the bedside table for books.'],
      ['Night Light', 24, 'Dim enough to sleep by, bright enough to find the door.'],
      ['Lantern', 39, 'Runs eight hours on a charge, indoors and out.'],
      ['Clip Lamp', 32, 'Holds on to shelves, headboards and workbenches.'],
      ['String Lights', 27, 'Ten metres of warm white with a timer.'],
    ],
    care: 'Comes with a replaceable LED bulb.',
  },
  {
    category: 'Bedroom',
    prefix: 'BED',
    makes: [
      ['Cotton', 1, 'Long-staple cotton that gets softer with each wash.'],
      ['Washed Linen', 1.8, 'Cool in summer, warm in winter, and never ironed.'],
      ['Flannel', 1.1, 'Brushed on both sides for cold nights.'],
      ['Bamboo', 1.3, 'Smooth, and quick to carry moisture away.'],
      ['Silk-Blend', 1.6, 'A little silk gives it a quiet shine.'],
    ],
    things: [
      ['Duvet Cover', 69, 'Closes with buttons that survive the spin cycle.'],
      ['Pillowcase', 19, 'An envelope back, so that the pillow stays in.'],
      ['Fitted Sheet', 39, 'Deep corners hold on to thick mattresses.'],
      ['Throw', 59, 'For the end of the bed or the arm of the sofa.'],
      ['Blanket', 79, 'Woven loosely, so that it traps air and weighs little.'],
      ['Bedspread', 89, 'Makes the bed look made.'],
      ['Sleep Mask', 14, 'Blocks early light without pressing on the eyes.'],
      ['Dressing Gown', 74, 'Two deep pockets and a loop to hang it by.'],
    ],
    care: 'Machine wash warm, tumble dry low.',
  },
  {
    category: 'Bathroom',
    prefix: 'BAT',
    makes: [
      ['White', 1, 'White goes with every tile.'],
      ['Sage', 1.1, 'A soft green that is easy on sleepy eyes.'],
      ['Charcoal', 1.1, 'Dark, and forgiving.'],
      ['Sand', 1, 'The colour of a dry beach.'],
      ['Rose', 1.2, 'A dusty pink that is hard to tire of.'],
    ],
    things: [
      ['Bath Towel', 29, 'Large enough to wrap up in.'],
      ['Hand Towel', 15, 'Has a loop on the short side.'],
      ['Bath Mat', 26, 'Stays flat and stays put.'],
      ['Soap Dish', 13, 'Ridges let the water run off.'],
      ['Tumbler', 11, 'For brushes, or for a glass of water at night.'],
      ['Laundry Basket', 54, 'Holds two loads and closes with a lid.'],
      ['Bath Caddy', 44, 'Spans the tub; a book and a cup fit side by side.'],
      ['Storage Box', 23, 'Hides what a shelf should not show.'],
    ],
    care: 'Let it dry in the open between uses.',
  },
  {
    category: 'Office',
    prefix: 'OFF',
    makes: [
      ['Walnut', 1.6, 'Oiled walnut, sanded until it feels like leather.'],
      ['Oak', 1.3, 'Pale oak with a clear grain.'],
      ['Aluminium', 1.3, 'Milled from one piece and anodised.'],
      ['Black', 1, 'A matt black that keeps to the background.'],
      ['Recycled', 0.8, 'Pressed from plastic flakes; every sheet looks different.'],
    ],
    things: [
      ['Pen Tray', 19, 'Three lanes, for pens, clips and what else gathers.'],
      ['Monitor Stand', 58, 'Lifts the screen to eye level and stores the keyboard below.'],
      ['Desk Organiser', 36, 'Letters upright, notebooks flat, scissors at hand.'],
      ['Document Box', 31, 'Takes a ream of A4 lying down.'],
      ['Laptop Stand', 64, 'Folds flat and weighs less than a book.'],
      ['Headphone Hanger', 17, 'Screws under the table top and stays out of sight.'],
      ['Desk Shelf', 53, 'A second level for what the first has no room for.'],
      ['Bookend', 22, 'A pair that holds a metre of heavy books.'],
    ],
    care: 'Wipe with a dry cloth.',
  },
  {
    category: 'Stationery',
    prefix: 'STA',
    makes: [
      ['Softcover', 1, 'The cover bends and springs back.'],
      ['Cloth-Bound', 1.6, 'Woven cloth over stiff board, sewn to open flat.'],
      ['Pocket', 0.7, 'Small enough to always be there.'],
      ['Recycled', 0.9, 'The paper was read once before.'],
      ['Large', 1.3, 'A4, for those who think in big letters.'],
    ],
    things: [
      ['Notebook', 16, 'One hundred and sixty pages that take ink without bleeding.'],
      ['Sketchbook', 21, 'Heavy paper for pencil, ink and a light wash.'],
      ['Weekly Planner', 24, 'A week on two pages, with room for notes.'],
      ['Journal', 19, 'Two ribbons mark today and the day to come back to.'],
      ['Recipe Book', 22, 'Tabs for eight chapters and a pocket for clippings.'],
      ['Travel Diary', 18, 'An elastic band keeps tickets and leaves in.'],
      ['Memo Pad', 8, 'Fifty sheets that tear off cleanly.'],
      ['Address Book', 17, 'For those whom one still writes to.'],
    ],
    care: 'Paper from managed forests.',
  },
  {
    category: 'Garden',
    prefix: 'GAR',
    makes: [
      ['Galvanised', 1.1, 'Zinc keeps rust away for years.'],
      ['Copper', 1.8, 'Copper goes from red to brown to green.'],
      ['Forest Green', 1, 'A green that disappears among leaves.'],
      ['Black', 1, 'Lacquered twice against sun and rain.'],
      ['Classic', 0.9, 'As plain as it was a hundred years ago.'],
    ],
    things: [
      ['Planter', 28, 'With a hole for drainage and a saucer to go with it.'],
      ['Watering Can', 34, 'A long spout reaches the back of the bed.'],
      ['Hand Trowel', 18, 'A narrow blade that cuts through roots.'],
      ['Plant Stand', 42, 'Brings a trailing plant up to the light.'],
      ['Bird Feeder', 26, 'Opens at the top and is easy to clean.'],
      ['Herb Trough', 31, 'As long as a kitchen window is wide.'],
      ['Harvest Basket', 37, 'Rinse the carrots right in it.'],
      ['Plant Labels', 9, 'Twelve of them, to write on again and again.'],
    ],
    care: 'Bring it in before the first hard frost.',
  },
  {
    category: 'Outdoor',
    prefix: 'OUT',
    makes: [
      ['Ultralight', 1.7, 'Every gram was questioned.'],
      ['Trail', 1, 'For days that start and end at the same door.'],
      ['Expedition', 2.1, 'Tested where help is a week away.'],
      ['Family', 1.2, 'Sized for more than one.'],
      ['Weekend', 0.9, 'For two nights and one change of plan.'],
    ],
    things: [
      ['Backpack', 95, 'A frame that puts the load on the hips.'],
      ['Camp Cup', 16, 'Nests over a gas canister.'],
      ['Sleeping Pad', 78, 'Rolls down to the size of a bottle.'],
      ['Dry Bag', 24, 'Keeps twenty litres of clothes dry in a capsized boat.'],
      ['Hip Pack', 38, 'Map, snack and keys, without stopping.'],
      ['Bottle', 27, 'A wide neck for ice, a narrow lid for drinking.'],
      ['Camp Stool', 46, 'Three legs stand firm on any ground.'],
      ['Cook Set', 67, 'A pot, a pan and a lid that drains pasta.'],
    ],
    care: 'Rinse, dry, and store it unrolled.',
  },
  {
    category: 'Sports',
    prefix: 'SPO',
    makes: [
      ['Classic', 1, 'The shape that has worked for decades.'],
      ['Pro', 1.8, 'Built for every day of the week.'],
      ['Studio', 1.3, 'The one that trainers order in dozens.'],
      ['Junior', 0.7, 'Made to the measure of smaller hands.'],
      ['Club', 1.2, 'Sturdy enough to be lent out.'],
    ],
    things: [
      ['Yoga Mat', 49, 'Thick enough for knees, firm enough for balance.'],
      ['Skipping Rope', 14, 'The handles turn on bearings; the length can be set.'],
      ['Foam Roller', 29, 'For the calves, the day after.'],
      ['Resistance Bands', 22, 'Five strengths from gentle to stubborn.'],
      ['Kettlebell', 44, 'A flat base and a handle without seams.'],
      ['Balance Board', 57, 'Ten minutes a day are plenty.'],
      ['Gym Bag', 52, 'A vented pocket keeps shoes apart.'],
      ['Table Tennis Bat', 26, 'Even rubber on both sides for spin and control.'],
    ],
    care: 'Wipe it down after use.',
  },
  {
    category: 'Toys',
    prefix: 'TOY',
    makes: [
      ['Wooden', 1.2, 'Rounded edges and paint that is safe to chew.'],
      ['Rainbow', 1, 'Six colours, clear and bright.'],
      ['Pastel', 1.1, 'Gentle colours for a gentle afternoon.'],
      ['Giant', 1.9, 'Everything is more fun when it is larger.'],
      ['Mini', 0.6, 'Fits a pocket, a train seat and a waiting room.'],
    ],
    things: [
      ['Building Blocks', 34, 'Forty pieces and no instructions.'],
      ['Puzzle', 19, 'Pieces that fit with a quiet click.'],
      ['Train Set', 59, 'A loop, a bridge and a station.'],
      ['Stacking Tower', 23, 'Falls down as gladly as it goes up.'],
      ['Animal Family', 28, 'Four animals that go everywhere.'],
      ['Marble Run', 64, 'A new course each afternoon.'],
      ['Memory Game', 16, 'Twenty-four pairs, drawn by hand.'],
      ['Pull-Along Cart', 47, 'Carries bears, blocks and the shopping.'],
    ],
    care: 'From three years.',
  },
  {
    category: 'Accessories',
    prefix: 'ACC',
    makes: [
      ['Striped', 1, 'A stripe that was on fishing boats first.'],
      ['Navy', 1.1, 'A blue that is nearly black.'],
      ['Charcoal', 1.1, 'Goes with everything in the wardrobe.'],
      ['Reflective', 1.2, 'Grey by day, bright in headlights.'],
      ['Heritage', 1.5, 'Made the slow way, in a small workshop.'],
    ],
    things: [
      ['Scarf', 39, 'Long enough to go round twice.'],
      ['Wallet', 45, 'Six cards, some notes, no bulge.'],
      ['Beanie', 24, 'Covers the ears and stays there.'],
      ['Tote Bag', 32, 'Wide handles that sit well on the shoulder.'],
      ['Gloves', 36, 'Thin enough to turn a key.'],
      ['Belt', 42, 'A plain buckle and five holes.'],
      ['Umbrella', 37, 'Opens against the wind and does not turn inside out.'],
      ['Key Ring', 12, 'A clasp that closes by itself.'],
    ],
    care: 'Air it rather than wash it.',
  },
  {
    category: 'Audio',
    prefix: 'AUD',
    makes: [
      ['Compact', 1, 'Takes no more room than a paperback.'],
      ['Studio', 1.9, 'Tuned to show what was recorded, no more, no less.'],
      ['Wireless', 1.4, 'Holds its connection three rooms away.'],
      ['Travel', 1.1, 'Comes in a case that survives a suitcase.'],
      ['Retro', 1.2, 'Real knobs that turn with the right resistance.'],
    ],
    things: [
      ['Speaker', 99, 'Fills a room and leaves the neighbours alone.'],
      ['Headphones', 119, 'Soft pads and a light clamp, for long evenings.'],
      ['Earphones', 59, 'Three sizes of tips for a snug fit.'],
      ['Radio', 84, 'Eight stations at the touch of a button.'],
      ['Record Player', 189, 'A belt drive, a heavy platter and a good needle.'],
      ['Microphone', 79, 'Clear voices, quiet keyboards.'],
      ['Soundbar', 149, 'Makes dialogue easy to follow.'],
      ['Alarm Clock', 44, 'Wakes gently, with light first and sound after.'],
    ],
    care: 'Two years of warranty, and spare parts for seven.',
  },
  {
    category: 'Pantry',
    prefix: 'PAN',
    makes: [
      ['Single-Origin', 1.4, 'From one farm, named on the label.'],
      ['Organic', 1.2, 'Certified, and traded fairly.'],
      ['Small-Batch', 1.3, 'The number of the batch is written by hand.'],
      ['House', 1, 'The one that is on the table at home.'],
      ['Reserve', 1.7, 'The best of the year, while it lasts.'],
    ],
    things: [
      ['Coffee', 14, 'Roasted slowly, in small batches.'],
      ['Black Tea', 9, 'Full, malty, and good with milk.'],
      ['Honey', 11, 'Stirred until creamy.'],
      ['Olive Oil', 19, 'Pressed within a day of picking.'],
      ['Chocolate', 6, 'Dark, with a clean snap.'],
      ['Sea Salt', 7, 'Coarse flakes that crunch before they melt.'],
      ['Granola', 8, 'Baked with seeds and very little sugar.'],
      ['Chilli Sauce', 10, 'Warm first, hot later.'],
    ],
    care: 'Store in a cool, dry place.',
  },
];

/**
 * The catalogue that a new installation starts with: 560 products in 14 categories, the same on every call.
 * SKUs read like `KIT-0001`.
 */
export function demoCatalogue(): NewProduct[] {
  return departments.flatMap(({ category, prefix, makes, things, care }, department) =>
    things.flatMap(([thing, euros, use], t) =>
      makes.map(([make, factor, about], m): NewProduct => {
        const number = t * makes.length + m + 1;
        return {
          sku: `${prefix}-${String(number).padStart(4, '0')}`,
          name: `${series[(department * 3 + t * 5 + m * 2) % series.length]} ${make} ${thing}`,
          description: `${use} ${about} ${care}`,
          category,
          // Prices end in 90 cents, as prices in shops do.
          price: { amount: Math.max(1, Math.round(euros * factor)) * 100 - 10, currency: 'EUR' },
        };
      }),
    ),
  );
}
